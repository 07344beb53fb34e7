"""Values that the programs would take without a word, or refuse without naming the variable, are told before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.stack.failures import StackFailure
from tools.stack.variables import refuse_wrong_values

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DECISION_WAIT", "5"),
        ("DECISION_WAIT", "0.5"),
        ("JAEGER_RETENTION", "7d"),
        ("SLOW_THRESHOLD_MS", "1s"),
        ("OTELCOL_MEMORY_LIMIT_MIB", "0"),
        ("OTELCOL_QUEUE_SPANS", "-1"),
        ("OTELCOL_QUEUE_SPANS", "2047"),
        ("BASELINE_PERCENTAGE", "101"),
        ("JAEGER_OTLP_INSECURE", "no"),
        ("OTELCOL_DIMENSIONS", "measure"),
        ("OTELCOL_DIMENSIONS", '"measure" "tenant"'),
    ],
)
def test_a_wrong_value_is_told_with_its_variable_and_what_is_needed(name, value):
    with pytest.raises(StackFailure, match=rf"{name}={re.escape(value)}: needs "):
        refuse_wrong_values({name: value})


def test_every_wrong_value_is_told_at_once():
    with pytest.raises(StackFailure, match=r"(?s)DECISION_WAIT=5:.*BASELINE_PERCENTAGE=x:"):
        refuse_wrong_values({"BASELINE_PERCENTAGE": "x", "DECISION_WAIT": "5"})


def test_the_smallest_queue_holds_what_is_handed_over_at_once():
    configuration = (ROOT / "collector-config" / "otelcol.yaml").read_text(encoding="utf-8")
    smallest = re.search(r"min_size: (\d+)", configuration)[1]
    refuse_wrong_values({"OTELCOL_QUEUE_SPANS": smallest})
    with pytest.raises(StackFailure):
        refuse_wrong_values({"OTELCOL_QUEUE_SPANS": str(int(smallest) - 1)})


def test_defaults_and_examples_are_right():
    configured = re.findall(
        r"\$\{env:([A-Z_]+):-([^}]*)\}",
        "".join(path.read_text(encoding="utf-8") for path in (ROOT / "collector-config").glob("*.yaml")),
    )
    example = re.findall(
        r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE
    )
    for name, value in (*configured, *example, ("DECISION_WAIT", "1m30s"), ("BASELINE_PERCENTAGE", "0.1")):
        refuse_wrong_values({name: value.strip("'")})
