"""Whose trace is kept: decided when the evaluation has ended, by the first policy that matches it.

Each policy has a token bucket of its own, so that a flood of slow evaluations cannot use up the place of errors.
What a bucket suppresses is counted, and the next trace kept for the same reason stands for it too: the sum of
`adjusted_count` over all kept traces estimates the number of evaluations.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from opentelemetry import baggage

from fhirpath_otel import semconv
from fhirpath_otel.sampling.baseline import Baseline, Draw
from fhirpath_otel.sampling.usual_durations import UsualDurations
from fhirpath_otel.telemetry.evaluation import Decision, Evaluation
from fhirpath_otel.telemetry.forks import call_in_forked_child

if TYPE_CHECKING:
    from fhirpath_otel.settings import Settings

MAX_SIGHTINGS = 10_000
"""Expressions that are known to have been kept once."""

_WITHOUT_BUDGET = frozenset({semconv.FORCED, semconv.ERROR})

_NOT_SELECTED = Decision(False, semconv.NOT_SELECTED)


_CERTAIN = Draw()


def _certain(_: Evaluation) -> Draw | None:
    return _CERTAIN


def _none() -> float:
    return 0.0


def _nothing(_: Evaluation) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Policy:
    """A reason to keep a trace.

    Where it is one only by chance, `draw` says whether an evaluation that matches is chosen, and what it stands for.
    `kept` is told of evaluations that were kept for this reason, `seen` of all of them, when they have been judged.
    `unjudged` says for how many more the next one stands that is kept, because nobody asked about them.
    """

    reason: str
    matches: Callable[[Evaluation], bool]
    draw: Callable[[Evaluation], Draw | None] = _certain
    kept: Callable[[Evaluation], None] = _nothing
    seen: Callable[[Evaluation], None] = _nothing
    unjudged: Callable[[], float] = _none


class TokenBucket:
    """At most `rate` events a second, and a second's worth at once. Not thread-safe: callers hold a lock."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._capacity = max(rate, 1.0) if rate > 0 else 0.0
        self._tokens = self._capacity
        self._last = now

    def take(self, now: float) -> bool:
        """Takes a token if there is one. A clock that goes backwards gives none."""
        self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._last) * self._rate)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class FirstSightings:
    """The expressions whose trace was kept lately, at most `capacity` of them.

    An expression counts as seen only once its trace was kept: what the bucket suppressed gets its turn later.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, evaluation: Evaluation) -> bool:
        """Whether the expression is not among those."""
        if evaluation.template is None or self._capacity == 0:
            return False
        try:
            self._seen.move_to_end(evaluation.template.hash)
        except KeyError:
            return True
        return False

    def remember(self, evaluation: Evaluation) -> None:
        """Adds the expression, and forgets the one that was not evaluated for longest. Callers hold a lock."""
        if evaluation.template is not None:
            self._seen[evaluation.template.hash] = None
            while len(self._seen) > self._capacity:
                self._seen.popitem(last=False)


def is_forced(evaluation: Evaluation) -> bool:
    """Whether the caller's baggage asks for the trace."""
    if not evaluation.context:
        return False
    return str(baggage.get_baggage(semconv.DEBUG_BAGGAGE, evaluation.context)).lower() == "true"


def has_bottleneck(evaluation: Evaluation) -> bool:
    """Whether a rule found something that is more than a note."""
    return bool(evaluation.findings) and any(
        finding.severity != semconv.INFO for finding in evaluation.findings
    )


class Reasons:
    """The reasons to keep a trace, in the order they are asked (`semconv.REASONS`), and what they know.

    `chance` gives numbers from 0 to below 1. `own` are asked after errors; they have to see every evaluation.
    """

    def __init__(
        self, settings: Settings, chance: Callable[[], float] = random.random, own: tuple[Policy, ...] = ()
    ) -> None:
        self.slow_ns = settings.slow_threshold * 1e9
        self._usual = UsualDurations(settings.max_expressions)
        self._baseline = Baseline(settings.baseline_rate, chance)
        sightings = FirstSightings(MAX_SIGHTINGS if settings.max_expressions else 0)
        self._begin_anew()
        call_in_forked_child(self._begin_anew)
        self.judges_all = bool(own)
        self.policies: tuple[Policy, ...] = (
            Policy(semconv.FORCED, is_forced),
            Policy(semconv.ERROR, lambda evaluation: evaluation.error_type is not None),
            *own,
            Policy(semconv.BOTTLENECK, has_bottleneck),
            Policy(
                semconv.SLOW,
                self._is_slow,
                seen=self._note,
                unjudged=lambda: self._take_unjudged(semconv.SLOW),
            ),
            Policy(semconv.FIRST_SIGHTING, sightings.is_new, kept=sightings.remember),
            Policy(
                semconv.BASELINE,
                lambda _: True,
                self._baseline.draw,
                unjudged=lambda: self._take_unjudged(semconv.BASELINE),
            ),
        )

    def passes(self) -> int:
        """How many evaluations the baseline passes over until it takes one."""
        return self._baseline.passes()

    def randomness(self) -> int:
        """What the id of a trace ends in that the baseline takes."""
        return self._baseline.randomness()

    def usual(self, expression: str | None, durations: Sequence[int]) -> float:
        """The nanoseconds beyond which an evaluation of this expression may be slow; counts ascending durations."""
        if expression is None:
            return self.slow_ns
        return min(self.slow_ns, self._usual.note_all(expression, durations))

    def suppressed(self, reason: str, count: int) -> None:
        """Takes note of evaluations that were not judged: the next one kept for the reason stands for them too."""
        self._unjudged[reason] += count * (self._baseline.weight if reason == semconv.BASELINE else 1.0)

    def _begin_anew(self) -> None:
        self._unjudged = {semconv.SLOW: 0.0, semconv.BASELINE: 0.0}

    def _take_unjudged(self, reason: str) -> float:
        taken, self._unjudged[reason] = self._unjudged[reason], 0.0
        return taken

    def _is_slow(self, evaluation: Evaluation) -> bool:
        if evaluation.in_turn:  # Its operators were noted: it is no measure, and not to be measured.
            return evaluation.duration_ns > self.slow_ns
        return evaluation.duration_ns > self.slow_ns or self._usual.is_exceeded(evaluation)

    def _note(self, evaluation: Evaluation) -> None:
        if not evaluation.in_turn:
            self._usual.note(evaluation)


class TailSampler:
    """Decides by the first policy that matches, as far as its bucket of `rate` traces a second allows.

    Threads may share it; only candidates to be kept take its lock. `clock` gives seconds, from any start. `affords`
    says whether there is budget for one more trace; errors and what was asked for are kept without.
    """

    def __init__(
        self,
        policies: tuple[Policy, ...],
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        affords: Callable[[], bool] = lambda: True,
    ) -> None:
        self._policies = policies
        self._seen = tuple(policy.seen for policy in policies if policy.seen is not _nothing)
        self._clock = clock
        self._affords = affords
        self._buckets = {policy.reason: TokenBucket(rate, clock()) for policy in policies}
        self._begin_anew()
        call_in_forked_child(self._begin_anew)

    def __call__(self, evaluation: Evaluation) -> Decision:
        """Whether the finished evaluation's trace is kept, and why."""
        decision = self._decide(evaluation)
        for seen in self._seen:
            seen(evaluation)
        return decision

    def _decide(self, evaluation: Evaluation) -> Decision:
        for policy in self._policies:
            if policy.matches(evaluation) and (draw := policy.draw(evaluation)) is not None:
                return self._ration(policy, evaluation, draw)
        return _NOT_SELECTED

    def _ration(self, policy: Policy, evaluation: Evaluation, draw: Draw) -> Decision:
        with self._lock:
            free = policy.reason in _WITHOUT_BUDGET
            if not ((free or self._affords()) and self._buckets[policy.reason].take(self._clock())):
                self._suppressed[policy.reason] += draw.weight
                return Decision(False, policy.reason)
            represented = draw.weight + self._suppressed[policy.reason] + policy.unjudged()
            self._suppressed[policy.reason] = 0.0
            policy.kept(evaluation)
        return Decision(True, policy.reason, represented, draw.threshold, draw.randomness)

    def _begin_anew(self) -> None:
        """In a forked child too: what was suppressed in the parent is told by the parent."""
        self._lock = Lock()
        self._suppressed = dict.fromkeys(self._buckets, 0.0)
