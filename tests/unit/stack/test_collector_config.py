"""The configurations of collector and Jaeger as texts: nothing in them drifts from the package, or is left unsaid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fhirpath_otel import semconv
from fhirpath_otel.analysis.rules import ADVICE
from fhirpath_otel.analysis.thresholds import Thresholds
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.template import expression_template, operator_names
from tools import build_collector_config as generator
from tools.collector_config import rules, shapes

FOLDER = Path(__file__).parents[3] / "collector-config"
CONFIGURATIONS = sorted(FOLDER.glob("*.yaml"))
VARIABLES = {
    "otelcol.yaml": {
        "STACK_LISTEN": "127.0.0.1",
        "OTLP_GRPC_PORT": "4317",
        "OTLP_HTTP_PORT": "4318",
        "OTELCOL_HEALTH_PORT": "13133",
        "OTELCOL_TELEMETRY_PORT": "8888",
        "OTELCOL_METRICS_PORT": "8889",
        "OTELCOL_STORAGE": "./run/otelcol",
        "OTELCOL_MEMORY_LIMIT_MIB": "400",
        "OTELCOL_QUEUE_SPANS": "200000",
        "OTELCOL_DIMENSIONS": '"error.type"',
        "JAEGER_OTLP_ENDPOINT": "127.0.0.1:14317",
        "JAEGER_OTLP_INSECURE": "true",
        "SLOW_THRESHOLD_MS": "1000",
        "BASELINE_PERCENTAGE": "5",
        "DECISION_WAIT": "5s",
    },
    "jaeger.yaml": {
        "STACK_LISTEN": "127.0.0.1",
        "JAEGER_OTLP_GRPC_PORT": "14317",
        "JAEGER_OTLP_HTTP_PORT": "14318",
        "JAEGER_QUERY_PORT": "16686",
        "JAEGER_QUERY_GRPC_PORT": "16685",
        "JAEGER_HEALTH_PORT": "23133",
        "JAEGER_TELEMETRY_PORT": "18888",
        "JAEGER_STORAGE": "./run/jaeger",
        "JAEGER_RETENTION": "72h",
        "PROMETHEUS_URL": "http://127.0.0.1:9090",
    },
    "otelcol-mtls.yaml": {
        "OTLP_TLS_CERT_FILE": None,
        "OTLP_TLS_KEY_FILE": None,
        "OTLP_CLIENT_CA_FILE": None,
    },
    "otelcol-backend-tls.yaml": {
        "JAEGER_TLS_CA_FILE": "",
        "JAEGER_TLS_CERT_FILE": "",
        "JAEGER_TLS_KEY_FILE": "",
        "JAEGER_AUTHORIZATION": "",
    },
}
"""Every variable with its default; None where it has to be given."""

EXPRESSIONS = (
    "Patient.name.where(use = 'official').given.first() & 'x'",
    "Patient.birthDate > @1970-01-01T10:00 and 1 'mg' < 2.5 'mg' or `a b`.c = %ucum",
    "Observation.value.ofType(Quantity).value / 10 - -3 ~ {}",
    "Patient.name[0].given.select($this.length() + $index) is System.Integer",
    "Binary.data.toString().encode('base64') in %context.iif(true, 1, 2)",
)


@pytest.fixture(scope="module")
def configuration():
    return yaml.safe_load((FOLDER / "otelcol.yaml").read_text(encoding="utf-8"))


def statements(configuration, signal, context):
    groups = configuration["processors"]["transform/redaction"][f"{signal}_statements"]
    return [line for group in groups if group["context"] == context for line in group["statements"]]


def allowed(lines):
    """The names of the one `keep_keys` of attributes."""
    (keep,) = [line for line in lines if re.match(r"keep_keys\([a-z]+\.attributes", line)]
    return set(re.findall(r'"([^"]+)"', keep))


def test_what_is_generated_is_up_to_date():
    text = generator.CONFIGURATION.read_text(encoding="utf-8")
    assert text == generator.filled(text), "run: python -m tools.build_collector_config"


def test_spans_keep_our_attributes_and_harmless_ones_and_no_others(configuration):
    own = {
        item.name.replace("{stage}", stage) for item in semconv.SPAN_ATTRIBUTES for stage in semconv.STAGES
    }
    harmless = {name for name in semconv.HARMLESS_ATTRIBUTES if "{" not in name}
    free = {semconv.EXPRESSION_TEXT.name}
    assert allowed(statements(configuration, "trace", "span")) == (own | harmless) - free
    assert allowed(statements(configuration, "trace", "spanevent")) <= harmless


def test_points_keep_attributes_of_our_metrics_and_harmless_ones(configuration):
    own = {item.name for metric in semconv.METRICS for item in metric.attributes}
    harmless = semconv.HARMLESS_ATTRIBUTES - {item.name for item in semconv.SPAN_ATTRIBUTES}
    of_many_values = {
        *("thread.id", "code.line.number", "code.lineno"),
        *("db.operation.batch.size", "db.response.returned_rows"),
    }
    assert of_many_values < harmless
    assert allowed(statements(configuration, "metric", "datapoint")) == (own | harmless) - of_many_values


@pytest.mark.parametrize(
    ("signal", "context"),
    [("trace", "resource"), ("trace", "span"), ("trace", "spanevent"), ("metric", "datapoint")],
)
def test_the_value_of_every_attribute_that_may_pass_is_checked(configuration, signal, context):
    lines = statements(configuration, signal, context)
    checked = {found[1] for line in lines if (found := re.match(r'delete_key\([a-z.]+, "([^"]+)"\)', line))}
    assert checked == allowed(lines)


@pytest.mark.parametrize(
    ("signal", "context"),
    [("trace", "resource"), ("trace", "span"), ("trace", "spanevent"), ("metric", "datapoint")],
)
def test_a_name_is_there_once_before_its_value_is_checked(configuration, signal, context):
    lines = statements(configuration, signal, context)
    checks = [number for number, line in enumerate(lines) if line.startswith("delete_key")]
    before = [line for line in lines[: checks[0]] if "attributes" in line or "cache" in line]
    assert before[0].startswith(f"keep_keys({context}.attributes, ")
    assert before[1:4] == [
        f'merge_maps({context}.cache, {context}.attributes, "upsert")',
        f"set({context}.attributes, {context}.cache)",
        f"keep_keys({context}.cache, [])",
    ]


def test_everything_of_a_span_that_statements_reach_is_checked(configuration):
    lines = statements(configuration, "trace", "span")
    for place in ("name", "status.message", "trace_state", "links"):
        assert any(line.startswith(f"set(span.{place}, ") for line in lines)
    assert statements(configuration, "trace", "scope")[0] == "keep_keys(scope.attributes, [])"
    assert statements(configuration, "metric", "scope") == statements(configuration, "trace", "scope")


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_no_attribute_is_named_that_does_not_exist(path):
    own = {
        item.name.replace("{stage}", stage) for item in semconv.SPAN_ATTRIBUTES for stage in semconv.STAGES
    }
    # Not those in comments, and not the collector's own, which tell its configuration's release.
    text = re.sub(r"(?m)^ *#.*$", "", path.read_text(encoding="utf-8"))
    named = set(re.findall(r"\bfhirpath\.[a-z_.]+[a-z]", text))
    assert named - own <= {"fhirpath.package.version", "fhirpath.package.schema_url"}


def test_what_cannot_be_checked_is_refused(configuration):
    processors = configuration["processors"]
    modes = {name: item["error_mode"] for name, item in processors.items() if "error_mode" in (item or {})}
    assert modes.pop("transform/bottlenecks") == "ignore"
    assert set(modes.values()) == {"propagate"}


def test_every_way_in_begins_with_the_limit_of_memory_and_redaction(configuration):
    pipelines = configuration["service"]["pipelines"]
    entries = {name: item for name, item in pipelines.items() if "otlp" in item["receivers"]}
    assert entries.keys() == {"traces/in", "metrics/applications"}
    for item in entries.values():
        assert item["processors"][:2] == ["memory_limiter", "transform/redaction"]
    assert {"span_metrics", "forward/kept", "forward/undecided"} == set(entries["traces/in"]["exporters"])


def test_spans_of_every_scope_that_our_recorder_writes_pass_by_the_tail_sampler(configuration):
    text = str({name: item for name, item in configuration["processors"].items() if "redaction" not in name})
    (pattern,) = set(re.findall(r'IsMatch\(scope.name, "([^"]+)"\) (?:or|and)', text))
    found = re.compile(pattern.replace("$$", "$"))
    assert all(found.search(scope) for scope in semconv.EVALUATOR_SCOPES)
    assert not found.search("fhirpath_otelier")


def test_each_rule_is_here_or_needs_more_than_one_span():
    assert {*rules.ONE_SPAN_RULES, *rules.SEVERAL_SPANS_RULES} == set(semconv.RULES)
    assert not set(rules.ONE_SPAN_RULES) & set(rules.SEVERAL_SPANS_RULES)


def test_rules_follow_the_thresholds():
    usual = rules.rule_statements(Thresholds())
    other = Thresholds(
        floor=0.123, little_saving=0.0456, great_saving=7.8, dominating_share=0.91, in_memory_saving=0.12
    )
    changed = "\n".join(rules.rule_statements(other))
    assert all(number in changed for number in ("0.123", "0.0456", "7.8", "0.91", "0.12"))
    assert all(ADVICE[rule] in "\n".join(usual) for rule in rules.ONE_SPAN_RULES)


def shape(attribute):
    return re.compile(shapes.SHAPES[attribute.name])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_our_templates_pass(expression):
    template = expression_template(parse(expression), load_model())
    assert shape(semconv.EXPRESSION_TEMPLATE).search(template.text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Peter Mueller, HIV",
            "Diagnose: x",
            "name = 'x'",
            "name > 12",
            "name[0]",
            "@2020",
            "`a`",
            'name "b"',
        ),
        *(
            "Mueller, Peter",
            "Patient.mueller",
            "Patient.names",
            "%mueller",
            "$mueller",
            "Patient..nameMueller",
        ),
    ],
)
def test_expressions_with_literals_or_names_of_others_are_no_templates(text):
    assert not shape(semconv.EXPRESSION_TEMPLATE).search(text)


def test_names_of_our_operators_and_types_pass():
    model = load_model()
    names = [*operator_names(model), semconv.UNKNOWN, semconv.OTHER, semconv.PATH]
    assert [name for name in names if not shape(semconv.OPERATOR_NAME).search(name)] == []
    assert not shape(semconv.OPERATOR_NAME).search("Mueller")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "error.type",
            [
                *(
                    "ValueError",
                    "_OTHER",
                    "500",
                    "timeout",
                    "23505",
                    "42P01",
                    "DEADLINE_EXCEEDED",
                    "ORA-00942",
                ),
                *("psycopg.errors.UndefinedTable", "java.util.Map$Entry", "std::bad_alloc", "ECONNREFUSED"),
                *("builtins.KeyError", "parse-error", "github.com/go-sql-driver/mysql.MySQLError"),
            ],
        ),
        (
            "code.function.name",
            ["main", "clinic.views.<lambda>", "a.f.<locals>.g", "com.example.Clinic.load"],
        ),
        ("rpc.service", ["myservice.EchoService", "DynamoDB"]),
        ("db.system.name", ["duckdb", "postgresql", "microsoft.sql_server", "other_sql"]),
        ("messaging.system", ["kafka", "aws_sqs", "AmazonSQS"]),
        ("db.namespace", ["0", "clinic", "clinic|public", "tenant_12"]),
        ("db.operation", ["SELECT", "findAndModify"]),
    ],
)
def test_names_as_instrumentations_send_them_pass(name, values):
    look, identifying = re.compile(shapes.NAMES[name]), re.compile(shapes.IDENTIFYING)
    assert [text for text in values if not look.search(text) or identifying.search(text)] == []


@pytest.mark.parametrize(
    ("version", "passes"),
    [
        *(
            (text, True)
            for text in ("1.39.1", "0.62b0", "v1.2.3", "semver:0.53.0", "2.0.1-alpha", "1.0.0rc1")
        ),
        *((text, False) for text in ("1970-01-01", "19700101", "1.0-mueller", "Mueller", "")),
    ],
)
def test_versions_of_releases_pass(version, passes):
    assert bool(re.search(shapes.VERSION, version)) is passes


def test_every_attribute_of_others_has_a_shape_a_list_or_a_range():
    own = {item.name for item in semconv.SPAN_ATTRIBUTES}
    known = {*shapes.SHAPES, *shapes.NAMES, *shapes.NUMBERS, *shapes.TRUTHS}
    assert semconv.HARMLESS_ATTRIBUTES - own <= known


def test_long_patterns_are_folded_without_a_change():
    statements = [
        'set(a, "x") where IsMatch(a, ' + generator.text("^(" + "|".join(["ab c"] * 99) + ")$") + ")"
    ]
    folded = generator.block(statements)
    assert max(map(len, folded.splitlines())) <= generator.WIDTH
    assert yaml.safe_load(folded) == [statements[0].replace("$", "$$")]


@pytest.mark.parametrize(
    ("route", "passes"),
    [
        ("/", True),
        ("/r4/Patient/{id}", True),
        ("/api/v1/<int:number>/:name/*", True),
        ("/Patient/123", False),
        ("/Patient/a1b2", False),
        ("/search?name=x", False),
    ],
)
def test_routes_without_ids_pass(route, passes):
    assert bool(re.search(shapes.SHAPES["http.route"], route)) is passes


def test_the_release_is_the_package_s(configuration):
    told = {
        item["name"]: item["value"]
        for item in configuration["service"]["telemetry"]["resource"]["attributes"]
    }
    version = re.search(r'^version = "(.+)"$', (FOLDER.parent / "pyproject.toml").read_text(), re.MULTILINE)
    assert told["fhirpath.package.version"] == version[1]
    assert told["fhirpath.package.schema_url"] == semconv.SCHEMA_URL


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_variables_are_known_and_have_the_same_default_everywhere(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"\$\{env:([A-Z_]+)(?::-([^}]*))?\}", text)
    assert {name: default for name, default in found if default} == {
        name: default for name, default in VARIABLES[path.name].items() if default
    }
    assert {name for name, _ in found} == VARIABLES[path.name].keys()
    optional = set(re.findall(r"\$\{env:([A-Z_]+):-", text))
    assert optional == {name for name, default in VARIABLES[path.name].items() if default is not None}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_nothing_listens_beyond_this_machine_by_default(path):
    text = path.read_text(encoding="utf-8")
    assert "0.0.0.0" not in text  # noqa: S104 -- that it is not there is the test
    for line in re.findall(r"(?m)^ +(?:endpoint|host): (.*)$", text):
        assert line.startswith(
            ("${env:STACK_LISTEN:-127.0.0.1}", "${env:JAEGER_OTLP_ENDPOINT", "${env:PROMETHEUS_URL")
        )
