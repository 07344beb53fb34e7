"""The sampler against a model, whatever comes in whatever order, and under threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from opentelemetry import baggage
from opentelemetry.context import Context

from fhirpath_otel import semconv
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.redaction import template_from

RATE, SIGHTINGS = 2.0, 3
DEBUG = baggage.set_baggage(semconv.DEBUG_BAGGAGE, "true", Context())
BOTTLENECK = (Finding("n-plus-one", "warning", "sql", 0, 1, {}, 1.0, "Evaluate once."),)


class Sampling(RuleBasedStateMachine):
    """Every evaluation that a reason applies to is represented exactly once: by a kept trace, or still waiting."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.chance = 0.0
        settings = Settings(slow_threshold=1.0, baseline_rate=0.5, max_expressions=SIGHTINGS)
        self.sample = TailSampler(Reasons(settings, lambda: self.chance).policies, RATE, lambda: self.now)
        self.represented = dict.fromkeys(semconv.REASONS, 0.0)
        self.judged = dict.fromkeys(semconv.REASONS, 0.0)
        self.kept = dict.fromkeys(semconv.REASONS, 0)
        self.sighted: list[str] = []

    @rule(seconds=st.floats(-1, 3))
    def time_passes_or_the_clock_is_set(self, seconds):
        self.now += seconds

    @rule(
        forced=st.booleans(),
        error=st.booleans(),
        bottleneck=st.booleans(),
        slow=st.booleans(),
        text=st.sampled_from("abcdef"),
        chance=st.floats(0, 1, exclude_max=True),
    )
    def an_evaluation_ends(self, forced, error, bottleneck, slow, text, chance):
        made = Evaluation(DEBUG if forced else Context())
        made.template = template_from(text)
        made.error_type = "syntax" if error else None
        made.findings = BOTTLENECK if bottleneck else ()
        made.duration_ns = 2 * 10**9 if slow else 1_000
        self.chance = chance
        flags = (forced, error, bottleneck, slow, text not in self.sighted, chance < 0.5)
        expected = next(
            (reason for reason, applies in zip(semconv.REASONS, flags, strict=True) if applies), None
        )
        if not (forced or error or bottleneck or slow) and text in self.sighted:
            self.sighted.append(self.sighted.pop(self.sighted.index(text)))

        decision = self.sample(made)

        assert decision.reason == (expected or semconv.NOT_SELECTED)
        if expected is None:
            assert not decision.kept
            return
        self.judged[expected] += 2.0 if expected == semconv.BASELINE else 1.0
        if decision.kept:
            self.kept[expected] += 1
            self.represented[expected] += decision.adjusted_count
            if expected == semconv.FIRST_SIGHTING:
                self.sighted = [*self.sighted, text][-SIGHTINGS:]

    @invariant()
    def what_was_judged_is_represented_or_waits_for_the_next_kept(self):
        for reason, judged in self.judged.items():
            assert self.represented[reason] + self.sample._suppressed[reason] == judged
            assert self.represented[reason] == 0.0 or self.kept[reason] > 0


TestSampling = Sampling.TestCase


@pytest.mark.parametrize("rate", [1e9, 50.0])
def test_threads_lose_no_weight(rate):
    sample = TailSampler(Reasons(Settings(baseline_rate=0.5, max_expressions=0), lambda: 0.0).policies, rate)

    def work(number: int) -> float:
        represented = 0.0
        for turn in range(2_000):
            made = Evaluation(Context())
            made.error_type = "syntax" if (number + turn) % 2 else None
            decision = sample(made)
            represented += decision.adjusted_count if decision.kept else 0.0
        return represented

    with ThreadPoolExecutor(8) as threads:
        represented = sum(threads.map(work, range(8)))
    # 8,000 errors that stand for themselves, 8,000 of the baseline that stand for two each.
    assert represented + sum(sample._suppressed.values()) == 24_000
