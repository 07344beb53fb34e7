"""The official FHIRPath suite for R4 against the type check: nothing valid refused, mistakes found before any data."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from fhirpath_otel.errors import ExpressionError, ExpressionSyntaxError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import check
from tests.conformance.suite import INPUTS, Case, cases, input_text

# Errors that depend on the data, so that no sound check can find them before.
LEFT_TO_EVALUATION = {
    "testLiterals/testLiteralDecimalLessThanInvalid": "Observation.value.value may be that of a valueString",
    "testLiterals/testNotInvalid": "a union may have one item",
    "testSingle/testSingle2": "a patient may have one name",
    "testIif/testIif10": "a union may have one item",
    "testConformsTo/testConformsTo3": "whether a profile is known",
    "from-Zulip/from-zulip-2": "a union may have Boolean items only",
    "testInheritance/testFHIRPathAsFunction21": "a patient may have one name",
}


def verdict(case: Case, resource_type: str) -> ExpressionError | None:
    """What the parser or the type check says against an expression."""
    try:
        check(parse(case.expression), case.expression, resource_type, load_model())
    except ExpressionError as error:
        return error
    return None


@pytest.fixture(scope="module")
def verdicts(shared_data: Path) -> list[tuple[Case, ExpressionError | None]]:
    model = load_model()
    types = {
        path.name: json.loads(input_text(shared_data, path.name, model))["resourceType"]
        for path in (shared_data / INPUTS).iterdir()
    }
    return [(case, verdict(case, types[case.input_file])) for case in cases(shared_data)]


def report(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\nofficial suite, type check: {line}")


def test_no_valid_expression_is_refused(verdicts, capsys):
    valid = [(case, error) for case, error in verdicts if case.invalid is None]
    refused = {case.key: str(error) for case, error in valid if error}
    report(capsys, f"{len(valid) - len(refused)} of {len(valid)} valid expressions accepted")
    assert len(valid) == 900
    assert refused == {}


@pytest.mark.parametrize(("stage", "total", "missed"), [("semantic", 12, 0), ("execution", 21, 7)])
def test_errors_are_found_before_any_data_is_seen(verdicts, capsys, stage, total, missed):
    wrong = [(case, error) for case, error in verdicts if case.invalid == stage]
    found = Counter(error is not None for _, error in wrong)
    report(capsys, f"{found[True]} of {len(wrong)} {stage} errors found")
    assert found == Counter({True: total - missed, False: missed})


def test_what_is_left_to_evaluation_depends_on_the_data(verdicts):
    assert {case.key for case, error in verdicts if case.invalid and not error} == LEFT_TO_EVALUATION.keys()


def test_semantic_errors_are_told_apart_from_those_of_syntax(verdicts):
    kinds = {
        (case.invalid, isinstance(error, ExpressionSyntaxError))
        for case, error in verdicts
        if case.invalid in {"syntax", "semantic"}
    }
    assert kinds == {("syntax", True), ("semantic", False)}
