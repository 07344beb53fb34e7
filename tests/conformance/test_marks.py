"""Marks at operators change no answer: the official suite with and without them, in our engine and in fhirpathpy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import fhirpathpy
import pytest
from fhirpathpy.engine.nodes import FP_Quantity, FP_Type
from fhirpathpy.models import models

from fhirpath_otel.engines.fhirpathpy import MarkedExpression
from fhirpath_otel.errors import FhirpathOtelError
from fhirpath_otel.evaluator.memory import InMemory, compile_expression
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import check
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.operators import OperatorMarks
from tests.conformance import suite


@pytest.fixture(scope="module")
def cases(shared_data) -> list[tuple[str, str]]:
    """(expression, text of the resource)"""
    model = load_model()
    found = list(suite.cases(shared_data))
    texts = {name: suite.input_text(shared_data, name, model) for name in {case.input_file for case in found}}
    return [(case.expression, texts[case.input_file]) for case in found]


def answer(evaluate: Callable[[], Any]) -> Any:
    """The items, or the error. Values of fhirpathpy and its messages are compared by what they show."""
    try:
        return [_shown(item) for item in evaluate()]
    except Exception as error:  # noqa: BLE001  whatever it raises is its answer
        return type(error), re.sub("0x[0-9a-f]+", "", str(error))


def _shown(item: Any) -> Any:
    if isinstance(item, FP_Quantity):
        return item.value, item.unit
    return str(item) if isinstance(item, FP_Type) else item


def in_memory(expression: str, text: str) -> InMemory | None:
    try:
        typed = check(parse(expression), expression, json.loads(text)["resourceType"], load_model())
        return compile_expression(typed)
    except FhirpathOtelError:
        return None


def by_fhirpathpy(expression: str) -> Any:
    try:
        return fhirpathpy.compile(expression, models["r4"], {"traceFn": lambda *_: None})
    except Exception:  # noqa: BLE001  it raises whatever comes
        return None


def test_our_engine_answers_the_same(cases):
    different, places = [], 0
    for expression, text in cases:
        compiled = in_memory(expression, text)
        if compiled is None:
            continue
        marks = OperatorMarks()
        evaluate = compiled.marked(marks)
        if answer(lambda text=text, evaluate=evaluate: evaluate(text)) != answer(
            lambda text=text, evaluate=compiled.evaluate: evaluate(text)
        ):
            different.append(expression)
        places += len(marks.times())
    assert different == []
    assert places > 1_500


def test_fhirpathpy_answers_the_same(cases):
    different, elsewhere, places, unknown = [], [], 0, set()
    for expression, text in cases:
        compiled = by_fhirpathpy(expression)
        if compiled is None:
            continue
        marked, evaluation = MarkedExpression(compiled, expression), Evaluation()
        resource = json.loads(text, parse_float=Decimal)
        if answer(lambda at=(evaluation, resource), marked=marked: marked.evaluate(*at)) != answer(
            lambda resource=resource, compiled=compiled: compiled(resource)
        ):
            different.append(expression)
        for one in evaluation.operators:
            places += 1
            if one.position is None:
                unknown.add(expression)
            elif one.name not in {"?", "[]"} and not expression.startswith(one.name, one.position):
                elsewhere.append((expression, one))
    assert different == []
    assert elsewhere == []
    assert unknown == {"2 + 2 /* not finished"}, (
        "what the text says is read by another lexer than fhirpathpy's"
    )
    assert places > 1_500
