"""What is read of spans: anybody's, so with anything in their attributes."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from fhirpath_otel.telemetry.span_evaluations import (
    evaluation_of,
    evaluations_in,
    is_evaluation,
    local_parent,
)

HASH = "0123456789abcdef"


def context(span_id, remote=False):
    return SpanContext(1, span_id, remote, TraceFlags(1))


def span(span_id=1, parent=None, start=1_000, end=11_000, status=StatusCode.UNSET, **attributes: Any):
    named = {"fhirpath." + key.replace("__", "."): value for key, value in attributes.items()}
    return ReadableSpan(
        "x",
        context(span_id),
        None if parent is None else context(parent),
        attributes=named,
        start_time=start,
        end_time=end,
        status=Status(status),
    )


def test_all_that_our_names_tell_is_there():
    made = evaluation_of(
        span(
            expression__hash=HASH,
            expression__template="Patient.name",
            engine__name="fhirpathpy",
            engine__version="2",
            resource__type="Patient",
            execution__mode="in_memory",
            result__count=3,
            cache__hit=False,
            fallback__position=2,
            fallback__length=3,
            stage__parse__duration=2e-6,
        )
    )
    assert (made.template.hash, made.template.text, made.expression) == (HASH, "Patient.name", "Patient.name")
    assert (made.engine_name, made.engine_version, made.resource_type) == ("fhirpathpy", "2", "Patient")
    assert (made.execution_mode, made.result_count, made.cache_hit) == ("in_memory", 3, False)
    assert (made.obstacle, made.duration_ns) == ((2, 5), 10_000)
    assert made.stages == [("parse", 1_000, 3_000)]
    assert made.caller is None


def test_stages_are_those_of_children_where_the_root_does_not_tell():
    spans = [
        span(2, 1, 2_000, 5_000, stage="parse"),
        span(3, 2, 2_000, 5_000, stage="sql"),
        span(4, 1, 5_000, 4_000, stage="in_memory"),
        span(5, 1, stage="CANARY"),
    ]
    made = evaluation_of(span(expression__hash=HASH), spans)
    assert made.stages == [("parse", 2_000, 5_000), ("in_memory", 5_000, 5_000)]


@pytest.mark.parametrize("odd", [None, 5, True, ("a",), float("nan"), ""])
def test_an_attribute_that_is_not_what_it_should_be_is_not_there(odd):
    names = ("expression__template", "engine__version", "resource__type", "result__count", "cache__hit")
    odd_ones = dict.fromkeys((*names, "stage__parse__duration", "stage__sql__duration"), odd)
    made = evaluation_of(span(expression__hash=HASH, **odd_ones))
    assert made.template.text is None
    assert made.resource_type is None
    assert made.result_count in {None, 5}
    assert made.cache_hit in {None, True}
    assert made.stage_durations() == ({"parse": 5 * 10**9, "sql": 5 * 10**9} if odd == 5 else {})


def test_an_error_is_told_without_its_message():
    assert evaluation_of(span(status=StatusCode.ERROR)).error_type == "_OTHER"
    assert evaluation_of(span(status=StatusCode.OK)).error_type is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"expression__hash": HASH}, True),
        ({"engine__name": "x"}, True),
        ({"stage": "sql", "engine__name": "x"}, False),
        ({"resource__type": "Patient"}, False),
    ],
)
def test_an_evaluation_is_known_by_its_attributes(attributes, expected):
    assert is_evaluation(span(**attributes).attributes) == expected


def test_what_a_recorder_has_judged_is_left_out():
    spans = [span(1, expression__hash=HASH), span(2, expression__hash=HASH, sampling__reason="slow"), span(3)]
    assert len(evaluations_in(spans)) == 1


def test_only_a_valid_parent_of_this_process_is_a_local_one():
    assert local_parent(context(7)) == (1, 7)
    assert local_parent(context(7, remote=True)) is None
    assert local_parent(context(0)) is None
    assert local_parent(None) is None
