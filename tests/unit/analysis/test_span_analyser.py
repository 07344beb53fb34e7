"""The rules over spans that belong together, whoever made them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.trace import SpanContext, Status, TraceFlags

from fhirpath_otel.analysis.span_analyser import SpanAnalyser

MS = 1_000_000


def span(number: int = 1, parent: int | None = None, lasts_ms: float = 10, **attributes: Any):
    def context(span_id):
        return SpanContext(1, span_id, False, TraceFlags(1))

    return SimpleNamespace(
        name="x",
        context=context(number),
        parent=None if parent is None else context(parent),
        attributes={key.replace("__", "."): value for key, value in attributes.items()},
        status=Status(),
        start_time=0,
        end_time=round(lasts_ms * MS),
    )


def rules(spans):
    return [finding.rule for finding in SpanAnalyser()(spans)]


@pytest.mark.parametrize("name", ["db__query__text", "db__statement", "db__query__summary"])
def test_a_statement_that_is_repeated_is_a_loop_however_it_is_told(name):
    assert rules([span(n, **{name: "SELECT patient"}) for n in range(1, 11)]) == ["n-plus-one"]
    assert rules([span(n, **{name: "SELECT patient"}) for n in range(1, 10)]) == []


def test_literals_do_not_tell_statements_apart():
    text = "SELECT * FROM t WHERE a = 'it''s {0}' AND b = {0}.5"
    assert rules([span(n, db__query__text=text.format(n)) for n in range(1, 14)]) == ["n-plus-one"]


def test_the_evidence_is_of_the_statement_that_is_repeated_most():
    spans = [span(n, lasts_ms=2, db__query__text="SELECT a") for n in range(1, 14)]
    spans += [span(n, lasts_ms=9, db__query__text="SELECT b") for n in range(20, 31)]
    [finding] = SpanAnalyser()(spans)
    assert finding.evidence["executions"] == 13
    assert finding.evidence["sql.duration"] == pytest.approx(0.026)


def test_our_own_sql_spans_are_counted_with_their_evaluations_only():
    assert (
        rules([span(n, fhirpath__stage="sql", db__query__summary="SELECT Patient") for n in range(1, 30)])
        == []
    )


def test_each_rule_is_told_once_for_all_evaluations_of_a_request():
    def evaluation(number):
        return span(
            number,
            1,
            lasts_ms=10,
            fhirpath__expression__hash="ab" * 8,
            fhirpath__stage__type_check__duration=0.008,
        )

    assert rules([evaluation(n) for n in range(2, 6)]) == ["type-check-dominates"]


def test_texts_that_are_parsed_again_and_again_are_told_by_their_template():
    def parsed(number):
        return span(
            number,
            fhirpath__expression__hash="cd" * 8,
            fhirpath__cache__hit=False,
            fhirpath__stage__parse__duration=0.003,
        )

    assert rules([parsed(n) for n in range(1, 11)]) == ["parse-repeated"]


def test_a_statement_that_is_no_text_is_none():
    assert rules([span(n, db__statement=n, db__query__summary=("a",)) for n in range(1, 30)]) == []
