"""The templates of published expressions against what the collector lets pass: none of them is lost there."""

from __future__ import annotations

import re

from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.template import expression_template
from fhirpath_otel.semconv import EXPRESSION_TEMPLATE
from fhirpath_otel.telemetry.redaction import MAX_TEMPLATE_BYTES
from tests.conformance.suite import cases
from tools.collector_config.shapes import SHAPES

PASSES = re.compile(SHAPES[EXPRESSION_TEMPLATE.name])


def template(expression):
    """The template; None for what is no expression, and has none."""
    try:
        return expression_template(parse(expression), load_model()).text
    except ExpressionSyntaxError:
        return None


def held_back(expressions):
    """How many templates there are, and which do not pass."""
    found = [text for text in map(template, expressions) if text is not None]
    assert max(map(len, found)) < MAX_TEMPLATE_BYTES
    return len(found), [text for text in found if not PASSES.search(text)]


def test_templates_of_the_official_suite_pass(shared_data):
    number, held = held_back(case.expression for case in cases(shared_data))
    assert held == []
    assert number > 900


def test_templates_of_search_parameters_pass(search_parameters):
    number, held = held_back(expression for _, _, expression in search_parameters)
    assert held == []
    assert number > 1_700
