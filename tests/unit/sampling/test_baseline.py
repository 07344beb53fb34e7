"""By what chance an evaluation is chosen, and whether its trace tells that chance."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, TraceState

from fhirpath_otel.sampling.baseline import Baseline, Draw
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.tracestate import RANGE, threshold_of

HALF, QUARTER = threshold_of(0.5), threshold_of(0.25)


def below(trace_id=None, state=None) -> Evaluation:
    made = Evaluation()
    if trace_id is not None:
        made.caller = SpanContext(
            trace_id, 1, True, trace_state=TraceState([("ot", state)] if state else None)
        )
    return made


@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_a_new_trace_reaches_the_threshold_exactly_when_it_is_chosen(rate, chance):
    draw = Baseline(rate, lambda: chance).draw(below())
    assert (draw is not None) == (int(chance * RANGE) < round(rate * RANGE))
    if draw is not None:
        assert draw.threshold == threshold_of(rate)
        assert draw.threshold <= draw.randomness < RANGE
        assert draw.weight == pytest.approx(1 / rate, rel=1e-6) or rate < 1e-10


@pytest.mark.parametrize(("chance", "draw"), [(0.24, Draw(4.0, None)), (0.25, None)])
def test_below_a_caller_without_a_threshold_the_trace_tells_nothing(chance, draw):
    assert Baseline(0.25, lambda: chance).draw(below(RANGE - 1)) == draw


@pytest.mark.parametrize(
    ("trace_id", "state", "draw"),
    [
        (QUARTER, "th:0", Draw(4.0, QUARTER)),
        (QUARTER - 1, "th:0", None),
        (QUARTER, "th:8", Draw(2.0, QUARTER)),
        (QUARTER - 1, "th:8", None),
        (RANGE - 1, "th:e", Draw(1.0, QUARTER)),
        (1 << 56, "th:0;rv:ffffffffffffff", Draw(4.0, QUARTER)),
        (RANGE - 1, "th:0;rv:00000000000000", None),
    ],
)
def test_below_a_caller_with_a_threshold_the_randomness_of_the_trace_decides(trace_id, state, draw):
    def chance():
        raise AssertionError("no chance of our own")

    assert Baseline(0.25, chance).draw(below(trace_id, state)) == draw


@pytest.mark.parametrize("state", ["th:8", "th:zz", "th:", "th:123456789abcdef", "rv:1"])
def test_a_threshold_that_cannot_be_counts_as_none(state):
    assert Baseline(0.25, lambda: 0.0).draw(below(HALF - 1, state)) == Draw(4.0, None)


@pytest.mark.parametrize("state", ["th:0", "th:8", "th:f", None])
def test_the_weights_estimate_the_evaluations_below_sampled_callers(state):
    source = random.Random(11)  # noqa: S311
    baseline, total, estimate = Baseline(0.2, source.random), 0, 0.0
    threshold = int((state or "th:0")[3:].ljust(14, "0"), 16)
    for _ in range(20_000):
        trace_id = source.getrandbits(128)
        if trace_id % RANGE >= threshold:
            total += 1
            draw = baseline.draw(below(trace_id, state))
            estimate += 0.0 if draw is None else draw.weight
    # The weight is 5 at most: the standard deviation is below 2 √total.
    assert abs(estimate - total) < 8 * total**0.5


@pytest.mark.parametrize(
    ("randomness", "chance", "draw"),
    [(QUARTER, 0.99, Draw(4.0, QUARTER, QUARTER)), (QUARTER - 1, 0.0, None)],
)
def test_a_trace_that_has_its_id_already_is_chosen_by_that(randomness, chance, draw):
    made = below()
    made.randomness = randomness
    assert Baseline(0.25, lambda: chance).draw(made) == draw


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.9])
def test_the_passes_between_draws_are_as_if_each_had_been_drawn(rate):
    baseline = Baseline(rate, random.Random(4).random)  # noqa: S311
    passes = [baseline.passes() for _ in range(20_000)]
    assert sum(passes) / len(passes) == pytest.approx((1 - rate) / rate, rel=0.05)
    none_passed = sum(passed == 0 for passed in passes) / len(passes)
    assert none_passed == pytest.approx(rate, rel=0.2)


def test_a_share_of_all_passes_nobody_and_a_share_of_none_everybody():
    assert Baseline(1.0, lambda: 0.999).passes() == 0
    assert Baseline(0.0, lambda: 0.0).passes() == sys.maxsize


@given(st.floats(0, 1, exclude_max=True), st.floats(0.001, 1))
def test_what_was_drawn_before_has_a_randomness_from_the_threshold_on(chance, rate):
    baseline = Baseline(rate, lambda: chance)
    evaluation = Evaluation()
    evaluation.drawn = False
    assert baseline.draw(evaluation) is None
    evaluation.drawn = True
    draw = baseline.draw(evaluation)
    assert draw is not None
    assert threshold_of(rate) <= draw.randomness < RANGE
