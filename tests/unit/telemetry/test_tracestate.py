from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, TraceState

from fhirpath_otel.telemetry.tracestate import (
    RANGE,
    incoming_threshold,
    randomness_of,
    threshold_in,
    threshold_of,
    with_threshold,
)


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "th:0"), (0.5, "th:8"), (0.25, "th:c"), (0.01, "th:fd70a3d70a3d70")]
)
def test_a_threshold_is_written_as_the_proposal_has_it(probability, text):
    assert with_threshold(None, threshold_of(probability)).get("ot")[:16] == text[:16]


@given(st.integers(0, RANGE - 1))
def test_what_is_written_is_read(threshold):
    assert threshold_in(with_threshold(None, threshold)) == threshold


def test_everything_else_in_the_state_stays():
    state = TraceState([("host", "a"), ("ot", "rv:0123456789abcd;th:8;x:1"), ("other", "b")])
    assert dict(with_threshold(state, 0)) == {"ot": "th:0;rv:0123456789abcd;x:1", "host": "a", "other": "b"}
    full = TraceState([(f"k{number}", "v") for number in range(32)])
    assert list(with_threshold(full, 0)) == ["ot", *list(full)[:31]]


@pytest.mark.parametrize(
    "text",
    ["", "th", "th:", "th:g", "th:FF", "th:-1", "th:0x1", "th:1_0", "th: 1", "rv:1", "th:123456789abcdef"],
)
def test_what_is_no_threshold_is_none(text):
    assert threshold_in(TraceState([("ot", text)]) if text else None) is None


def test_randomness_is_the_end_of_the_trace_id_unless_the_state_tells_it():
    assert randomness_of(SpanContext((7 << 56) + 5, 1, True)) == 5
    for text, randomness in (("rv:0000000000000f", 15), ("rv:f", 5), ("rv:zzzzzzzzzzzzzz", 5)):
        context = SpanContext((7 << 56) + 5, 1, True, trace_state=TraceState([("ot", text)]))
        assert randomness_of(context) == randomness


def test_a_threshold_that_the_trace_does_not_reach_is_none():
    for randomness, threshold in ((8 << 52, 8 << 52), ((8 << 52) - 1, None)):
        context = SpanContext((1 << 56) + randomness, 1, True, trace_state=TraceState([("ot", "th:8")]))
        assert incoming_threshold(context) == threshold
