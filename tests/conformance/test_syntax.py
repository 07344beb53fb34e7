"""The official FHIRPath suite for R4 against the parser: what it calls a syntax error is refused, and no more."""

from __future__ import annotations

import sys

from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator.parser import parse
from tests.conformance.suite import Case, cases

# Errors that the suite leaves to evaluation; by the grammar a time has no time zone, so that they are errors of syntax.
FOUND_EARLIER = {"testLiterals/testLiteralTimeUTC", "testLiterals/testLiteralTimeTimezoneOffset"}


def is_refused(case: Case) -> bool:
    try:
        parse(case.expression)
    except ExpressionSyntaxError:
        return True
    return False


def test_the_suite_and_the_parser_agree_on_syntax(shared_data, capsys):
    suite = list(cases(shared_data))
    refused = {case.key for case in suite if is_refused(case)}
    expected = {case.key for case in suite if case.invalid == "syntax"}
    agreed = sum((case.key in refused) == (case.key in expected | FOUND_EARLIER) for case in suite)
    with capsys.disabled():
        sys.stdout.write(f"\nofficial suite, syntax: {agreed} of {len(suite)} expressions judged right.")
    assert refused - expected == FOUND_EARLIER
    assert expected <= refused
    assert len(suite) == 935
