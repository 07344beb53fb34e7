"""What the evaluations of one expression have in common, so that most of them need no judging of their own.

An evaluation is ordinary if it did not fail, took no longer than usual, no rule found anything, and neither the
baseline's draw nor its turn to be recorded in more detail fell on it. Where these two fall is known beforehand: a share
chosen by chance is a number of evaluations that are passed over, and so is a turn. Both are counted down by one
iterator, because taking from it is atomic and costs 0.02 µs. Ordinary evaluations leave some numbers each, and are
added up `BATCH` at a time.
"""

from __future__ import annotations

import sys
import weakref
from array import array
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import length_hint
from threading import RLock
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fhirpath_otel import semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome
    from fhirpath_otel.telemetry.routes import Route
    from fhirpath_otel.telemetry.watches import Kind

BATCH = 128
"""Evaluations of one expression that are added up at once. Adding up fewer costs more, as caches are cold."""

CALLS_BATCH = 512
"""The same of calls, which leave two numbers each."""

MOST = 384
"""So many wait while another thread adds up; beyond that a caller waits for it."""

CALLS_MOST = 1_024
"""The same of calls."""

PASSES = 256
"""Evaluations that pass between two looks at whether it is time to add up."""

LONG_NS = 25_000_000
"""The memory of expressions whose evaluations take less in the mean is not watched."""

SPARE = 64
"""Where a turn has to be known before an evaluation runs, so many before it are asked too: they may run at once."""

NEVER = sys.maxsize
"""A turn that does not come."""

UNSETTLED_INTERVAL = 64
"""How often an expression is judged whose first trace was suppressed, so that it is kept later."""

MARKS = 20.0
"""Calls of operators in an evaluation, until they were counted."""


PLAIN, SQL_STAGES, IN_MEMORY_STAGES = 0, 2, 3
STAGES_OF = {
    (semconv.PARSE, semconv.SQL): SQL_STAGES,
    (semconv.PARSE, semconv.IN_MEMORY, semconv.SQL): IN_MEMORY_STAGES,
}
"""The stages of evaluations of what is compiled already, and how many they are."""

Quick = tuple[int, int, Callable[[list[int]], None], int]
"""Nanoseconds at most, nanoseconds since when, what takes the numbers, and which stages there are."""


class Ordinary(Protocol):
    """What a sampler says beforehand of evaluations that it would not keep."""

    def passes(self) -> int:
        """How many evaluations the baseline passes over until it takes one."""

    def randomness(self) -> int:
        """What the id of a trace ends in that the baseline takes."""

    slow_ns: float
    """Whatever takes longer is slow."""

    def usual(self, expression: str | None, durations: Sequence[int]) -> float:
        """Takes note of ascending durations of an expression, or of several without names; what lasts longer than the
        returned nanoseconds is slow.
        """

    def suppressed(self, reason: str, count: int) -> None:
        """Takes note of evaluations that would have been kept for this reason, but were not judged."""


class Turn(NamedTuple):
    """What falls on one evaluation: the baseline's draw, the turn to be recorded in more detail.

    A draw may be `unpaid`: then the evaluation is ordinary, and counted as suppressed unless it turns out otherwise.
    """

    drawn: bool = False
    detailed: bool = False
    unpaid: bool = False


_NOTHING = Turn()


def _nobody() -> None:
    return None


def _nowhere(_: list[int]) -> None:
    return None


_NOT_QUICK: Quick = (-1, 0, _nowhere, PLAIN)


def _always() -> bool:
    return True


class Known:
    """The watches of what is evaluated again and again, by the kinds of its callers. Threads may share it.

    `last` is the context of the last evaluation, the watch that was found for it, and whose watch that is: several
    recorders may share what is compiled.
    """

    __slots__ = ("_others", "first", "last")

    def __init__(self) -> None:
        # Most have callers of one kind only, and a dictionary takes 230 bytes.
        self.first: tuple[Kind, Watch] | None = None
        self._others: dict[Kind, Watch] | None = None
        self.last: tuple[Callable[[], Context | None], Watch | None, object] = (_nobody, None, None)

    def find(self, context: Context, kind: Kind | None, owner: object) -> Watch | None:
        """The owner's watch for callers of this kind, whose context this is."""
        watch = self.of(kind)
        if watch is not None:
            self.last = weakref.ref(context), watch, owner
        return watch

    def of(self, kind: Kind | None) -> Watch | None:
        """The watch for callers of this kind."""
        if kind is None or self.first is None:
            return None
        if self.first[0] is kind:
            return self.first[1]
        return None if self._others is None else self._others.get(kind)

    def add(self, kind: Kind, watch: Watch) -> None:
        """The watch for callers of this kind from now on."""
        if self.first is None or self.first[0] is kind:
            self.first = kind, watch
        else:
            self._others = {**(self._others or {}), kind: watch}


class Watch:
    """The expression, in one way of execution and under one kind of caller. Threads may share it.

    `detail` is that of ordinary evaluations, `turn_detail` that of one in `interval`. `timed_one_in` is above 1 where
    only some are timed. What takes longer than `usual_ns` is slow, and judged if it is beyond `limit_ns`: where that
    is more, traces of slow ones cannot be paid now. `unpaid` are the draws that could not be paid, until they are
    counted. `expression` is None where several share it. `marks` are the calls of operators in one evaluation.
    `only_stage` is that of engines whose evaluation is one call; `has_operators` says that operators can be recorded,
    `asks_rules` that a rule may find something, `brief` that memory is not watched. While more than `spare` passes are
    left, nothing has to be known of an evaluation before it runs.

    What waits to be added up: `noted` are `width` numbers of each ordinary evaluation, namely its duration, its results
    (-1 where they are not known) and the nanoseconds of each of its `stages`; `plain` are the first two where stages
    are not recorded, and of calls; `weighed` are calls that stand for more than themselves, each with three numbers, of
    which the last is the weight. A number takes 8 bytes there, and `fromlist` adds all those of an evaluation or none.

    `quick` is what the quickest way of ending an evaluation needs: how long it may have taken at most, since when this
    process is there, to whom its numbers go, and which stages it has, of `STAGES_OF`.
    """

    __slots__ = (
        "_accounted",
        "_affords",
        "_lock",
        "_passed_length",
        "_passes_to",
        "_round",
        "_since_ns",
        "_to_detail",
        "_to_draw",
        "asks_rules",
        "brief",
        "changed_at",
        "changed_mean_ns",
        "detail",
        "expression",
        "has_operators",
        "interval",
        "limit_ns",
        "marks",
        "mean_ns",
        "note_plain",
        "noted",
        "only_stage",
        "outcome",
        "passes",
        "plain",
        "quick",
        "retired",
        "route",
        "settled",
        "spare",
        "stages",
        "timed_one_in",
        "turn_detail",
        "unpaid",
        "untimed",
        "usual_ns",
        "weighed",
        "width",
    )

    def __init__(
        self,
        expression: str | None,
        route: Route,
        outcome: Outcome,
        passes: Callable[[], int] | None,
        affords: Callable[[], bool] = _always,
        *,
        stages: tuple[str, ...] = (),
    ) -> None:
        self.expression = expression
        self.route = route
        self.outcome = outcome
        self.asks_rules = True
        self.brief = False
        self.spare = SPARE
        self.only_stage: str | None = None
        self.has_operators = False
        self.detail = semconv.STAGE_DETAIL
        self.turn_detail = semconv.STAGE_DETAIL
        self.interval = NEVER
        self.timed_one_in = 1
        self.limit_ns = self.usual_ns = float("inf")
        self.quick: Quick = _NOT_QUICK
        self.unpaid = 0
        self.mean_ns = 0.0
        self.marks = MARKS
        self.changed_at = float("-inf")
        self.changed_mean_ns = 0.0
        self.settled = True
        self.retired = False
        self.stages = stages
        self.width = 2 + len(stages)
        self.noted, self.plain, self.weighed = numbers(), numbers(), numbers()
        self.note_plain = self.plain.fromlist
        self._lock = RLock()  # As those of what adds up: a finalizer may be anywhere.
        self._since_ns = 0
        self._passes_to = passes or _never
        self._affords = affords
        self._to_draw = self._passes_to()
        self._to_detail = NEVER
        self._begin_passes()
        self._round = self._accounted = 0
        self.untimed = repeat(True, 0)

    def turn(self) -> Turn:
        """What falls on the evaluation for which there was no pass left; mostly nothing."""
        with self._lock:
            if next(self.passes, False):
                return _NOTHING  # Another thread was here first, and this evaluation takes a pass of the new ones.
            self._to_draw -= self._passed_length
            self._to_detail -= self._passed_length
            turn = Turn(self._to_draw == 0, self._to_detail == 0)
            self._to_draw = self._passes_to() if turn.drawn else self._to_draw - 1
            self._to_detail = self._next_turn() if turn.detailed else self._to_detail - 1
            self._begin_passes()
            # One that is judged anyhow is the sampler's to suppress.
            if turn.drawn and not turn.detailed and not self._affords():
                turn = Turn(unpaid=True)
                self.unpaid += 1
        return turn

    def next_turn(self) -> Turn:
        """What falls on the next evaluation."""
        return _NOTHING if next(self.passes, False) else self.turn()

    def tell(self, evaluation: Evaluation, turn: Turn) -> None:
        """Tells an evaluation what falls on it."""
        evaluation.watch, evaluation.drawn, evaluation.detail = self, turn.drawn, self.detail
        if turn.detailed:
            evaluation.detail = self.turn_detail
            evaluation.in_turn = self.turn_detail != self.detail
        evaluation.ordinary = None if turn.drawn or turn.detailed else self
        evaluation.unpaid = turn.unpaid

    def set_detail(self, detail: str, turn_detail: str, interval: int, timed_one_in: int) -> None:
        """The detail of ordinary evaluations, that of one in `interval`, and of how many one is timed."""
        with self._lock:
            used = self._passed_length - length_hint(self.passes)
            self._to_draw -= used
            self.detail, self.turn_detail, self.interval = detail, turn_detail, interval
            self._to_detail = self._next_turn()
            self._begin_passes()
            self._choose_quick()
            if timed_one_in != self.timed_one_in:
                # What has passed untimed in this round stays to be accounted for.
                left = self._round - length_hint(self.untimed) - self._accounted
                self._round = left + timed_one_in - 1
                self._accounted = 0
                self.timed_one_in = timed_one_in
                self.untimed = repeat(True, timed_one_in - 1)

    def limit(self, usual_ns: float, limit_ns: float) -> None:
        """What lasts longer than usual is slow, and judged if it is beyond the limit."""
        with self._lock:
            self.usual_ns, self.limit_ns = usual_ns, limit_ns
            self._choose_quick()

    def _choose_quick(self) -> None:
        has_stages = self.detail == semconv.STAGE_DETAIL
        shape = STAGES_OF.get(self.stages) if has_stages else PLAIN
        if shape is None or self.asks_rules:
            self.quick = _NOT_QUICK
        else:
            usual_ns = round(min(self.usual_ns, self.limit_ns, NEVER))
            note = (self.noted if has_stages else self.plain).fromlist
            self.quick = (usual_ns, self._since_ns, note, shape)

    def retire(self) -> None:
        """Lets no more evaluations pass: they find another watch."""
        self.retired, self.brief, self.passes = True, False, repeat(True, 0)

    def settle(self, settled: bool) -> None:
        """Whether the sampler is done with what it does at the first sighting."""
        if settled is not self.settled:
            self.settled, self.spare = settled, SPARE
            self.set_detail(self.detail, self.turn_detail, self.interval, self.timed_one_in)

    def weight(self) -> int:
        """How many evaluations the one stands for that is timed now; 0 where it need not be timed after all."""
        with self._lock:
            if next(self.untimed, False):
                return 0
            weight = self._round - self._accounted + 1
            self._accounted, self._round = 0, self.timed_one_in - 1
            self.untimed = repeat(True, self._round)
        return weight

    def judge_instead(self, weight: int) -> None:
        """Takes an evaluation out of the weights that is judged by itself: 0 for one that was not to be timed."""
        if self._round:
            with self._lock:
                self._accounted -= weight - 1

    def unaccounted(self) -> int:
        """How many evaluations were passed untimed since the last one that was timed, or since the last call."""
        if not self._round:
            return 0
        with self._lock:
            # Below 0 where one that was counted was judged afterwards; the next ones make up for it.
            used = max(0, self._round - length_hint(self.untimed) - self._accounted)
            self._accounted += used
        return used

    def is_idle(self) -> bool:
        """Whether there is nothing to add up."""
        return not (self.noted or self.plain or self.weighed or self._round)

    def waiting(self) -> int:
        """How many evaluations wait to be added up."""
        return len(self.noted) // self.width + len(self.plain) // 2 + len(self.weighed) // 3

    def take_unpaid(self, most: int) -> int:
        """The draws that could not be paid, at most so many, to be counted."""
        with self._lock:
            taken = max(0, min(self.unpaid, most))
            self.unpaid -= taken
        return taken

    def judge_unpaid(self) -> None:
        """Takes back an unpaid draw, as the evaluation is judged after all."""
        with self._lock:
            self.unpaid -= 1

    def forget(self) -> None:
        """In a forked child: what waits is the parent's."""
        self._lock = RLock()
        for waiting in (self.noted, self.plain, self.weighed):
            del waiting[:]
        self.unpaid = 0
        self._accounted = self._round - length_hint(self.untimed)
        self._since_ns = perf_counter_ns()
        self._choose_quick()

    def _next_turn(self) -> int:
        """Evaluations until the next turn."""
        interval = self.interval if self.settled else min(self.interval, UNSETTLED_INTERVAL)
        return interval if interval == NEVER else interval - 1

    def _begin_passes(self) -> None:
        self._passed_length = 0 if self.retired else max(0, min(self._to_draw, self._to_detail, PASSES))
        self.passes = repeat(True, self._passed_length)


def numbers() -> array[int]:
    """Where numbers wait."""
    return array("q")


def drained(waiting: array[int]) -> list[int]:
    """What waits to be added up, and waits no more. Others may add to it meanwhile, but not take from it."""
    count = len(waiting)
    found = waiting[:count].tolist()
    del waiting[:count]
    return found


def _never() -> int:
    return NEVER
