from __future__ import annotations

import ast
from pathlib import Path

from fhirpath_otel import semconv

PACKAGE = Path(semconv.__file__).parent
PREFIXES = ("fhirpath.", "db.")


def test_names_are_unique():
    for names in (
        [attribute.name for attribute in semconv.SPAN_ATTRIBUTES],
        [metric.name for metric in semconv.METRICS],
        [span.name for span in semconv.SPANS],
    ):
        assert len(names) == len(set(names))


def test_boundaries_rise_and_every_histogram_has_them():
    for metric in semconv.METRICS:
        assert list(metric.boundaries) == sorted(set(metric.boundaries))
        assert bool(metric.boundaries) == (metric.instrument == "histogram")


def test_no_other_module_spells_a_name():
    known = {item.name for item in (*semconv.SPAN_ATTRIBUTES, *semconv.METRICS)}
    elsewhere = {
        (file.name, node.value)
        for file in PACKAGE.rglob("*.py")
        if file.name != "semconv.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in known or (node.value.startswith("fhirpath.") and node.value.count(" ") == 0)
    }
    assert not elsewhere
