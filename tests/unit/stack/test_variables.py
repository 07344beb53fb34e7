"""Values that the programs would take without a word, or refuse without naming the variable, are told before."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tools.stack.failures import WrongVariable
from tools.stack.variables import refuse_wrong_values

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DECISION_WAIT", "5"),
        ("DECISION_WAIT", "0.5"),
        ("DECISION_WAIT", "0s"),
        ("DECISION_WAIT", "-5s"),
        ("DECISION_WAIT", " "),
        ("DECISION_WAIT", "500ms"),
        ("DECISION_WAIT", "٣s"),
        ("DECISION_WAIT", "0h0m0.9s"),
        ("DECISION_WAIT", "25h"),
        ("DECISION_WAIT", "99999999h"),
        ("JAEGER_RETENTION", "7d"),
        ("JAEGER_RETENTION", "0h"),
        ("JAEGER_RETENTION", "99999999h"),
        ("SLOW_THRESHOLD_MS", "1s"),
        ("SLOW_THRESHOLD_MS", "0"),
        ("SLOW_THRESHOLD_MS", "99999999999999999999"),
        ("OTELCOL_MEMORY_LIMIT_MIB", "0"),
        ("OTELCOL_MEMORY_LIMIT_MIB", "10"),
        ("OTELCOL_MEMORY_LIMIT_MIB", "127"),
        ("OTELCOL_MEMORY_LIMIT_MIB", "400MiB"),
        ("OTELCOL_MEMORY_LIMIT_MIB", "4294967296"),
        ("OTELCOL_MEMORY_LIMIT_MIB", "0400"),
        ("GOMEMLIMIT", "foo"),
        ("GOMEMLIMIT", "320"),
        ("OTELCOL_QUEUE_SPANS", "-1"),
        ("OTELCOL_QUEUE_SPANS", "02048"),
        ("SLOW_THRESHOLD_MS", "010"),
        ("BASELINE_PERCENTAGE", "00"),
        ("BASELINE_PERCENTAGE", "05"),
        ("JAEGER_HEALTH_PORT", "023133"),
        ("OTELCOL_QUEUE_SPANS", "2047"),
        ("OTELCOL_QUEUE_SPANS", "99999999999999999999"),
        ("BASELINE_PERCENTAGE", "101"),
        ("BASELINE_PERCENTAGE", "-1"),
        ("JAEGER_OTLP_INSECURE", "no"),
        ("JAEGER_OTLP_ENDPOINT", "traces.example"),
        ("JAEGER_OTLP_ENDPOINT", "traces.example:"),
        ("JAEGER_OTLP_ENDPOINT", "traces.example:65536"),
        ("JAEGER_OTLP_ENDPOINT", "http://traces.example:4317/v1/traces"),
        ("PROMETHEUS_URL", "localhost:9090"),
        ("PROMETHEUS_URL", "http://"),
        ("PROMETHEUS_URL", "http://:9090"),
        ("PROMETHEUS_URL", "http://localhost:99999"),
        ("PROMETHEUS_URL", "http://[localhost:9090"),
        ("PROMETHEUS_URL", "ftp://localhost"),
        ("PROMETHEUS_URL", " "),
        ("OTELCOL_DIMENSIONS", "measure"),
        ("OTELCOL_DIMENSIONS", '"measure" "tenant"'),
        ("OTELCOL_DIMENSIONS", '" "'),
        ("OTELCOL_STORAGE", " "),
        ("JAEGER_STORAGE", "  "),
        ("JAEGER_STORAGE", f"{__file__}/jaeger"),
        ("OTLP_TLS_CERT_FILE", "certificates/collector.pem"),
        ("OTLP_CLIENT_CA_FILE", "/no/such/authority.pem"),
        ("JAEGER_TLS_KEY_FILE", "/no/such/client.key"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable_and_what_is_needed(name, value):
    with pytest.raises(WrongVariable, match=rf"{name}={re.escape(shlex.quote(value))}: needs ") as refused:
        refuse_wrong_values({name: value}, with_overlays=True)
    assert refused.value.exit_code == 2


def test_a_secret_that_is_wrong_is_not_shown():
    with pytest.raises(WrongVariable, match="JAEGER_AUTHORIZATION=…: needs one line") as refused:
        refuse_wrong_values({"JAEGER_AUTHORIZATION": "Bearer s3cret\nBearer other"}, with_overlays=True)
    assert "s3cret" not in str(refused.value)


def test_what_only_overlays_read_is_checked_where_there_is_one():
    refuse_wrong_values({"OTLP_CLIENT_CA_FILE": "/no/such/authority.pem"})


@pytest.mark.parametrize("of", ["OTELCOL_STORAGE", "JAEGER_STORAGE"])
def test_a_storage_is_no_file(of, tmp_path):
    (tmp_path / "file").touch()
    refuse_wrong_values({of: str(tmp_path)})
    with pytest.raises(WrongVariable, match="needs a folder"):
        refuse_wrong_values({of: str(tmp_path / "file")})


def test_every_wrong_value_is_told_at_once():
    with pytest.raises(WrongVariable, match=r"(?s)DECISION_WAIT=5:.*BASELINE_PERCENTAGE=x:"):
        refuse_wrong_values({"BASELINE_PERCENTAGE": "x", "DECISION_WAIT": "5"})


def test_the_smallest_queue_holds_what_is_handed_over_at_once():
    configuration = (ROOT / "collector-config" / "otelcol.yaml").read_text(encoding="utf-8")
    smallest = re.search(r"min_size: (\d+)", configuration)[1]
    refuse_wrong_values({"OTELCOL_QUEUE_SPANS": smallest})
    with pytest.raises(WrongVariable):
        refuse_wrong_values({"OTELCOL_QUEUE_SPANS": str(int(smallest) - 1)})


def test_defaults_and_examples_are_right():
    configured = re.findall(
        r"\$\{env:([A-Z_]+):-([^}]*)\}",
        "".join(path.read_text(encoding="utf-8") for path in (ROOT / "collector-config").glob("*.yaml")),
    )
    example = re.findall(
        r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE
    )
    right = (
        *(("DECISION_WAIT", "1m30s"), ("DECISION_WAIT", "1.5s"), ("BASELINE_PERCENTAGE", "0.1")),
        *(
            ("JAEGER_OTLP_ENDPOINT", text)
            for text in ("[::1]:4317", "dns:///jaeger:4317", "https://traces:443")
        ),
        *(("PROMETHEUS_URL", text) for text in ("https://metrics.example/prometheus", "http://[::1]:9090")),
    )
    for name, value in (*configured, *example, *right):
        refuse_wrong_values({name: value.strip("'")})
