"""Order of the reasons, their buckets and their weights, by an injected clock and injected chance."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.context import Context

from fhirpath_otel import semconv
from fhirpath_otel.sampling.policies import FirstSightings, Policy, Reasons, TailSampler, TokenBucket
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry.evaluation import Decision, Evaluation
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.redaction import template_from

ORDINARY = Settings(slow_threshold=1.0, baseline_rate=0.25, max_expressions=3)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def evaluation(error_type=None, seconds=0.0, text: str | None = "a", severity=None, debug=None) -> Evaluation:
    made = Evaluation(None if debug is None else baggage.set_baggage("fhirpath.debug", debug, Context()))
    if severity is not None:
        made.findings = (Finding("n-plus-one", severity, "sql", 0, 1, {}, 1.0, "Evaluate once."),)
    made.error_type = error_type
    made.duration_ns = int(seconds * 1e9)
    made.template = None if text is None else template_from(text)
    return made


def sampler(settings=ORDINARY, chance=lambda: 0.9, rate=10.0, clock=None) -> TailSampler:
    return TailSampler(Reasons(settings, chance).policies, rate, clock or Clock())


def test_the_first_policy_that_matches_decides():
    sample = sampler(chance=lambda: 0.0)
    assert sample(evaluation("syntax", 9, severity="warning", debug="true")).reason == "forced"
    assert sample(evaluation("syntax", 9, severity="warning")).reason == "error"
    assert sample(evaluation(seconds=9, severity="warning")).reason == "bottleneck"
    assert sample(evaluation(seconds=9)).reason == "slow"
    assert sample(evaluation()).reason == "first_sighting"
    assert sample(evaluation()).reason == "baseline"


def test_the_policies_are_the_reasons_of_the_table_in_their_order():
    assert tuple(policy.reason for policy in Reasons(ORDINARY).policies) == semconv.REASONS


@pytest.mark.parametrize(
    ("debug", "forced"), [("true", True), ("TRUE", True), ("false", False), ("1", False), ("", False)]
)
def test_the_callers_baggage_forces_a_trace_when_it_says_true(debug, forced):
    sample = sampler(Settings(max_expressions=0, baseline_rate=0))
    assert sample(evaluation(debug=debug)).kept == forced


@pytest.mark.parametrize(("severity", "kept"), [("info", False), ("warning", True), ("critical", True)])
def test_a_bottleneck_is_a_reason_from_warning_on(severity, kept):
    sample = sampler(Settings(max_expressions=0, baseline_rate=0))
    assert sample(evaluation(severity=severity)).kept == kept


def test_slow_is_also_what_exceeds_the_99th_percentile_of_its_expression():
    sample = sampler(Settings(max_expressions=1, baseline_rate=0))
    for number in range(600):
        sample(evaluation(seconds=0.001 if number % 50 else 0.002))
    assert not sample(evaluation(seconds=0.002)).kept
    assert sample(evaluation(seconds=0.003)).reason == "slow"
    assert sample(evaluation(seconds=0.003, text="another")).reason == "first_sighting"


def test_what_is_usual_is_learnt_from_every_evaluation_whoever_decides():
    sample = sampler(Settings(max_expressions=1, baseline_rate=0))
    for _ in range(600):
        assert sample(evaluation(seconds=0.001, debug="true")).reason == "forced"
    assert sample(evaluation(seconds=0.002)).reason == "slow"


def test_what_no_policy_matches_is_not_selected():
    sample = sampler()
    sample(evaluation())
    assert sample(evaluation()) == Decision(False, "not_selected")


def test_slow_means_longer_than_the_threshold():
    sample = sampler()
    assert sample(evaluation(seconds=1.0)).reason == "first_sighting"
    assert sample(evaluation(seconds=1.000001)).reason == "slow"


def test_a_trace_of_the_baseline_stands_for_as_many_as_its_chance_says():
    sample = sampler(chance=lambda: 0.2)
    sample(evaluation())
    decision = sample(evaluation())
    assert (decision.kept, decision.reason, decision.adjusted_count) == (True, "baseline", 4.0)


@pytest.mark.parametrize(("rate", "draw"), [(0.0, 0.0), (0.25, 0.25)])
def test_the_baseline_takes_only_its_share(rate, draw):
    sample = sampler(Settings(baseline_rate=rate), chance=lambda: draw)
    sample(evaluation())
    assert sample(evaluation()).reason == "not_selected"


def test_an_evaluation_without_an_expression_is_no_first_sighting():
    assert sampler()(evaluation(text=None)).reason == "not_selected"


def test_the_expression_that_was_not_seen_for_longest_is_forgotten(monkeypatch):
    monkeypatch.setattr("fhirpath_otel.sampling.policies.MAX_SIGHTINGS", 3)
    sample = sampler()
    for text in ("a", "b", "c", "a", "d"):
        sample(evaluation(text=text))
    reasons = [sample(evaluation(text=text)).reason for text in ("a", "c", "d", "b")]
    assert reasons == ["not_selected", "not_selected", "not_selected", "first_sighting"]


def test_no_expressions_remembered_means_no_first_sightings():
    sample = sampler(Settings(max_expressions=0))
    assert sample(evaluation()).reason == "not_selected"


def test_each_reason_has_its_own_bucket():
    sample = sampler(rate=2.0)
    slow = [sample(evaluation(seconds=9)).kept for _ in range(4)]
    errors = [sample(evaluation("syntax")).kept for _ in range(3)]
    assert (slow, errors) == ([True, True, False, False], [True, True, False])


def test_the_next_trace_kept_for_a_reason_stands_for_those_suppressed():
    clock = Clock()
    sample = sampler(rate=1.0, clock=clock)
    assert sample(evaluation("syntax")) == Decision(True, "error", 1.0)
    for _ in range(5):
        assert sample(evaluation("syntax")) == Decision(False, "error")
    clock.now += 1.0
    assert sample(evaluation("syntax")) == Decision(True, "error", 6.0)
    clock.now += 1.0
    assert sample(evaluation("syntax")) == Decision(True, "error", 1.0)


def test_a_suppressed_match_of_the_baseline_weighs_as_much_as_a_kept_one():
    clock = Clock()
    sample = sampler(chance=lambda: 0.0, rate=1.0, clock=clock)
    sample(evaluation())
    assert [sample(evaluation()).adjusted_count for _ in range(1)] == [4.0]
    assert not sample(evaluation()).kept
    clock.now += 1.0
    assert sample(evaluation()).adjusted_count == 8.0


def test_a_suppressed_first_sighting_gets_its_turn_later():
    clock = Clock()
    sample = sampler(rate=1.0, clock=clock)
    assert sample(evaluation(text="a")).kept
    assert sample(evaluation(text="b")) == Decision(False, "first_sighting")
    clock.now += 1.0
    assert sample(evaluation(text="b")) == Decision(True, "first_sighting", 2.0)


@pytest.mark.parametrize("rate", [1e9, 5.0, 0.5])
def test_adjusted_counts_estimate_all_evaluations_with_and_without_suppression(rate):
    draw, clock = random.Random(7), Clock()  # noqa: S311
    sample = sampler(Settings(baseline_rate=0.1, max_expressions=50), draw.random, rate, clock)
    total, estimate, suppressed, kept = 50_000, 0.0, 0, dict.fromkeys(semconv.REASONS, 0)
    for number in range(total):
        # In bursts: a thousand a second, then ten.
        clock.now += 0.001 if number % 10_000 < 5_000 else 0.1
        made = evaluation(
            "syntax" if number % 100 == 0 else None,
            draw.lognormvariate(-7, 0.5),
            str(number if number % 200 == 3 else number % 40),
            "warning" if number % 90 == 0 else "info",
            "true" if number % 2_000 == 1 else None,
        )
        decision = sample(made)
        if decision.kept:
            kept[decision.reason] += 1
            estimate += decision.adjusted_count
        suppressed += decision != Decision(False, "not_selected") and not decision.kept
    assert all(kept.values())
    assert (suppressed > 0) == (rate < 1e9)
    # The standard deviation of 50,000 draws at a chance of 0.1, times their weight, is 670.
    assert abs(estimate - total) < 2_700


@pytest.mark.parametrize("rate", [1e9, 3.0])
def test_adjusted_counts_are_unbiased_over_many_runs(rate):
    """The mean of 200 runs lies 14 times nearer than one run: a bias of 2 % would show."""
    estimates = []
    for seed in range(200):
        draw, clock = random.Random(seed), Clock()  # noqa: S311
        sample = sampler(Settings(baseline_rate=0.2, max_expressions=0), draw.random, rate, clock)
        estimate = 0.0
        for number in range(1_000):
            clock.now += 0.05
            decision = sample(evaluation("syntax" if number % 10 == 0 else None))
            estimate += decision.adjusted_count if decision.kept else 0.0
        estimates.append(estimate)
    # One run deviates by 60; what is still suppressed at its end counts for 10 more at most.
    assert abs(sum(estimates) / len(estimates) - 1_000) < 20


@pytest.mark.parametrize(
    ("rate", "times", "taken"),
    [
        (2.0, [0, 0, 0], [True, True, False]),
        (2.0, [0, 0, 0.5, 0.5], [True, True, True, False]),
        (0.5, [0, 1, 2], [True, False, True]),
        (0.0, [0, 1_000], [False, False]),
        (1.0, [0, -5, -5, -4], [True, False, False, True]),
        (2.0, [0, 100, 100, 100], [True, True, True, False]),
    ],
)
def test_a_bucket_holds_a_seconds_worth(rate, times, taken):
    bucket = TokenBucket(rate, 0.0)
    assert [bucket.take(time) for time in times] == taken


@given(st.lists(st.floats(-2, 2), max_size=200), st.floats(0, 50))
def test_a_bucket_never_gives_more_than_its_rate_allows(steps, rate):
    now, given_out, forward = 0.0, 0, 0.0
    bucket = TokenBucket(rate, now)
    for step in steps:
        now += step
        forward += max(0.0, step)
        given_out += bucket.take(now)
    assert given_out <= (max(rate, 1.0) if rate else 0.0) + forward * rate + 1e-6


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=1)), st.integers(0, 5))
def test_first_sightings_are_bounded(texts, capacity):
    sightings = FirstSightings(capacity)
    for text in texts:
        if sightings.is_new(evaluation(text=text)):
            sightings.remember(evaluation(text=text))
        assert len(sightings._seen) <= capacity


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_that_is_held_at_a_fork_does_not_stop_the_child():
    sample = TailSampler((Policy("error", lambda _: True),), 10.0, Clock())
    with sample._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if sample._lock.acquire(blocking=False) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
