"""The hot path: what happens in an evaluation is noted as tuples, and judged when it ends.

A span of the SDK costs about 25 µs, a tuple 0.1 µs; so stages are tuples, and only evaluations whose trace is kept
become spans, through the API with explicit times (`spans.py`). Metrics count every evaluation (`metrics.py`). Who
is kept is decided by an injected function (`fhirpath_otel.sampling`), what was slow is found by another
(`fhirpath_otel.analysis`). Nothing here ever raises into the host.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.current_context import context_getter
from fhirpath_otel.telemetry.database_memory import OpenDatabases
from fhirpath_otel.telemetry.driver_context import DRIVERS
from fhirpath_otel.telemetry.evaluation import Decision, Evaluation, Outcome
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.governor import Governor
from fhirpath_otel.telemetry.judge import Analyse, Decide, Judge
from fhirpath_otel.telemetry.memory_metrics import MemoryMetrics
from fhirpath_otel.telemetry.memory_sampler import MemorySampler
from fhirpath_otel.telemetry.metrics import Instruments
from fhirpath_otel.telemetry.own_tracer import OwnTracer
from fhirpath_otel.telemetry.redaction import Disclosure
from fhirpath_otel.telemetry.resident_memory import ResidentMemory
from fhirpath_otel.telemetry.under_way import UnderWay
from fhirpath_otel.telemetry.watch import BATCH, PLAIN, SQL_STAGES, Known, Ordinary, Turn, Watch
from fhirpath_otel.telemetry.watches import Callers, Kind, Watches

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["Analyse", "Decide", "Decision", "Evaluation", "Outcome", "Recorder"]

MayFind = Callable[[Evaluation, bool], bool]
"""Whether `Analyse` may find anything in evaluations such as this one, below a caller's span or not."""


_UNKNOWN = object()
_metrics_api = sys.modules.get("opentelemetry.metrics._internal")

_logger = logging.getLogger("fhirpath_otel")

_NO_SDK = Outcome(False, semconv.DROPPED, semconv.NO_SDK)
_SUPPRESSED_SLOW = Outcome(False, semconv.SUPPRESSED, semconv.SLOW)
_SWITCHED_OFF = Outcome(False, semconv.DROPPED, semconv.SWITCHED_OFF)
_LOST = Outcome(False, semconv.DROPPED, semconv.INTERNAL_ERROR)


def _set_aside(evaluation: Evaluation) -> None:
    """Lets an evaluation take the longer way at its end, on which more is done than counting."""
    if evaluation.aside is None:
        evaluation.aside = evaluation.ordinary, evaluation.unexpected
        evaluation.ordinary = evaluation.unexpected = None


def _finds_nothing(_: Evaluation) -> tuple[Finding, ...]:
    return ()


def _may_find_always(_: Evaluation, __: bool) -> bool:
    return True


class Recorder:
    """Takes evaluations from begin to finish. Threads may share it.

    `decide` says whose trace is kept, `analyse` what was slow in an evaluation and `may_find` when it need not be
    asked, `disclosure` what telemetry may show; by default templates, and no names of types. Without providers the
    global ones are used, also when they are set later. While neither of them does anything (none is set, or
    `OTEL_SDK_DISABLED`), an evaluation is neither judged nor counted.

    `ordinary` says beforehand which evaluations `decide` would not keep; those are then not asked about one by one.
    `governor` chooses how much is recorded, `dimensions` are the names of baggage entries that become attributes.
    """

    def __init__(
        self,
        decide: Decide,
        *,
        analyse: Analyse = _finds_nothing,
        may_find: MayFind = _may_find_always,
        disclosure: Disclosure | None = None,
        ordinary: Ordinary | None = None,
        governor: Governor | None = None,
        dimensions: tuple[str, ...] = (),
        watches_memory: bool = True,
        max_expressions: int = 200,
        version: str | None = None,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._decide = decide
        self._analyse = analyse
        self._disclosure = disclosure or Disclosure()
        self._version = version
        self._providers = (tracer_provider, meter_provider)
        self._own = OwnTracer(version, tracer_provider)
        self._governor = governor or Governor()
        self._ordinary = ordinary
        self._may_find = may_find
        self._dimensions = dimensions
        self._max_expressions = max_expressions
        self.databases = OpenDatabases()
        self._resident = ResidentMemory() if watches_memory else None
        self.memory = None if self._resident is None else MemorySampler(self._resident, self.lost)
        self.under_way = UnderWay()
        self._postponed: deque[Evaluation] = deque()
        self._current_context = context_getter()
        self._count_with(self._get_meter())
        self._said = False
        self.recording = False
        self._silent = _NO_SDK
        self._seen: tuple[bool, bool] | None = None

    def _count_with(self, meter: metrics.Meter) -> None:
        """Makes all that is counted with. Callers' kinds too: watches are found by them, and belong to a meter."""
        self._instruments = Instruments(
            meter,
            self._disclosure,
            self._max_expressions,
            self._learn,
            self._governor.ratio,
            suppressed=None if self._ordinary is None else self._ordinary.suppressed,
            catch_up=self.catch_up,
            under_way=self.under_way,
        )
        self._watches = (
            None
            if self._ordinary is None
            else Watches(self._ordinary, self._instruments, self._may_find, self._governor.affords_trace)
        )
        self._callers = Callers(self._dimensions)
        resident = self._resident
        self._judge = Judge(
            decide=self._decide,
            analyse=self._analyse,
            failed=self._failed,
            tracer=self._own,
            disclosure=self._disclosure,
            governor=self._governor,
            callers=self._callers,
            instruments=self._instruments,
            watches=self._watches,
            memory=self.memory,
            memory_metrics=None if resident is None else MemoryMetrics(meter, resident, self.databases),
        )

    @property
    def watches(self) -> list[Watch]:
        """Those of all expressions that were evaluated."""
        return self._instruments.watches

    def is_recording(self) -> bool:
        """Whether there is somebody to record for now, and recording is not switched off; `recording` says it too,
        once it is so.
        """
        try:
            return self.recording or self._listen()
        except Exception as error:  # noqa: BLE001 -- a provider of the host's own
            self._failed(error)
            return False

    def begin(self) -> Evaluation:
        """The notes of an evaluation that begins now, as a child of the span that is current here."""
        try:
            if self._postponed:
                self.catch_up()
            if not (self.recording or self._listen()):
                return Evaluation()
            evaluation = Evaluation(self._current_context())
            under_way = self.under_way
            next(under_way.begun)
            evaluation.under_way = under_way
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)
            return Evaluation()
        return evaluation

    def expect(self, evaluation: Evaluation, known: Known | None = None, turn: Turn | None = None) -> None:
        """Says how much is recorded of an evaluation, in its `detail`; to be called before it is executed.

        It has to have all notes by then that say what is evaluated. Who evaluates the same again, in the same stages,
        keeps `known` with what is evaluated: without it, or without this call, each evaluation is judged by itself.
        While the watch that was found there last is `brief`, and has more than its `spare` passes left, nothing has
        to be known before it runs: then it is enough to note `known` as `unexpected`. A `turn` is what falls on it,
        where that was asked before.
        """
        # Written out, like `finish`: between two statements of a database each call of a function takes 1 µs.
        try:
            context = evaluation.context
            if context is None:  # Nobody listens.
                return
            if turn is None and known is not None:
                seen, watch, owner = known.last
                if (
                    watch is not None
                    and owner is self._instruments
                    and watch.brief
                    and seen() is context
                    and next(watch.passes, False)
                ):
                    evaluation.ordinary = watch
                    return
            self._expect(evaluation, context, known, turn)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)

    def _expect(
        self, evaluation: Evaluation, context: Context, known: Known | None, turn: Turn | None
    ) -> None:
        watch = None
        if known is not None and self._watches is not None:
            caller = evaluation.from_caller = self._callers.caller(context)
            watch = known.find(context, caller.kind, self._instruments)
            evaluation.known = known
        if watch is None:
            evaluation.detail = self._governor.first_detail()
        else:
            watch.tell(evaluation, watch.next_turn() if turn is None else turn)
            if watch.waiting() >= BATCH:
                _set_aside(evaluation)
            if watch.brief:
                return
        if self.memory is not None:
            self.memory.begin(evaluation, self.memory.expects_long(evaluation))
            if evaluation.memory_track is not None:
                evaluation.ordinary = evaluation.aside = None

    def caller_kind(self, context: Context) -> Kind | None:
        """The kind of a context's caller; None where evaluations have to be judged."""
        try:
            return self._callers.caller(context).kind
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)
            return None

    def finish(self, evaluation: Evaluation, error_type: str | None = None) -> Outcome:
        """Ends an evaluation: decides, writes spans if kept, counts. A second call returns the first outcome."""
        watch = evaluation.ordinary
        if watch is None and evaluation.unexpected is not None and self.recording:
            context = evaluation.context
            seen, found, owner = evaluation.unexpected.last
            if (
                found is not None
                and context is not None
                and owner is self._instruments
                and seen() is context
                and next(found.passes, False)
            ):
                watch = evaluation.ordinary = found
                evaluation.unexpected = None
        if watch is not None and error_type is None and self.recording:
            try:
                most_ns, since_ns, note, shape = watch.quick
                consumer_ns = evaluation.consumer_ns
                count, sql_ns, stages = evaluation.result_count, evaluation.sql_active_ns, evaluation.stages
                if consumer_ns is not None and count is not None:
                    duration_ns = (evaluation.end_ns or perf_counter_ns()) - evaluation.start_ns - consumer_ns
                    numbers: list[int] = []
                    if shape == PLAIN:
                        numbers = [duration_ns, count]
                    elif len(stages) == shape and sql_ns is not None:
                        parse_ns = stages[0][2] - stages[0][1]
                        if shape == SQL_STAGES:
                            numbers = [duration_ns, count, parse_ns, sql_ns]
                        elif evaluation.in_memory_active_ns is not None:
                            numbers = [duration_ns, count, parse_ns, evaluation.in_memory_active_ns, sql_ns]
                    if numbers and duration_ns <= most_ns and evaluation.start_ns >= since_ns:
                        note(numbers)
                        evaluation.ordinary = evaluation.context = None
                        outcome = evaluation.outcome = watch.outcome
                        return outcome
            except Exception:  # noqa: BLE001, S110 -- then it is judged
                pass
        return self._finish_rare(evaluation, error_type)

    def _finish_rare(self, evaluation: Evaluation, error_type: str | None) -> Outcome:
        """Ends an evaluation for which the quickest way is not enough."""
        if evaluation.outcome is not None:
            return evaluation.outcome
        if evaluation.context is None and not self.recording:  # Nobody listened when it began.
            evaluation.end_ns, evaluation.outcome = perf_counter_ns(), self._silent
            return self._silent
        evaluation.end_ns = evaluation.end_ns or perf_counter_ns()
        if evaluation.aside is not None or evaluation.unexpected is not None:
            return self._finish_late(evaluation, error_type)
        watch, outcome = evaluation.ordinary, None
        if watch is not None and error_type is None and self.recording:
            outcome = self._pass(evaluation, watch)
        return outcome or self._finish(evaluation, error_type)

    def _finish_late(self, evaluation: Evaluation, error_type: str | None) -> Outcome:
        """Ends one on which more is done than counting: what waits with it is added up, drivers are told."""
        if evaluation.aside is not None:
            (evaluation.ordinary, evaluation.unexpected), evaluation.aside = evaluation.aside, None
        if evaluation.unexpected is not None:
            self._find(evaluation, evaluation.unexpected)
        # Also where it is judged, which is mostly why there was no pass left for it.
        watch, began_ns = evaluation.ordinary or evaluation.watch, perf_counter_ns()
        outcome = self.finish(evaluation, error_type)
        if watch is not None and watch.waiting() >= BATCH:
            if outcome is watch.outcome:
                self._governor.finished(perf_counter_ns() - began_ns)
            self.add_up(watch)
        if evaluation.premade is not None:
            self._settle_driver(evaluation)
        return outcome

    def _pass(self, evaluation: Evaluation, watch: Watch) -> Outcome | None:
        """Lets what an evaluation leaves wait to be added up; None if it is not ordinary after all."""
        try:
            duration_ns = evaluation.active_ns()
            if (
                duration_ns > watch.limit_ns
                or self.under_way.inherited(evaluation)
                or (watch.asks_rules and self._judge.finds(evaluation, evaluation.end_ns))
            ):
                return None
            numbers = [duration_ns, -1 if evaluation.result_count is None else evaluation.result_count]
            if watch.detail == semconv.STAGE_DETAIL:
                active = evaluation.stage_durations()
                if tuple(active) != watch.stages:
                    return None
                watch.noted.fromlist([*numbers, *active.values()])
            else:
                watch.plain.fromlist(numbers)
        except Exception:  # noqa: BLE001 -- then it is judged
            return None
        evaluation.ordinary = evaluation.context = None
        evaluation.outcome = watch.outcome if duration_ns <= watch.usual_ns else _SUPPRESSED_SLOW
        return evaluation.outcome

    def _find(self, evaluation: Evaluation, known: Known) -> None:
        """Tells an evaluation that was not expected what falls on it, now that it has ended."""
        evaluation.known, evaluation.unexpected = known, None
        try:
            context = evaluation.context
            kind = None if context is None else self._callers.caller(context).kind
            watch = None if context is None else known.find(context, kind, self._instruments)
            if watch is not None:
                watch.tell(evaluation, watch.next_turn())
                if evaluation.detail == semconv.OPERATOR_DETAIL:  # Too late for that.
                    evaluation.detail, evaluation.in_turn = watch.detail, False
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)

    def _finish(self, evaluation: Evaluation, error_type: str | None) -> Outcome:
        """Ends one that has to be judged."""
        ordinary, evaluation.ordinary, evaluation.unexpected = evaluation.ordinary, None, None
        evaluation.outcome = _LOST
        try:
            if ordinary is not None:
                evaluation.drawn = False
                if evaluation.watch is None:
                    evaluation.watch, evaluation.detail = ordinary, ordinary.detail
            if evaluation.unpaid and evaluation.watch is not None:
                evaluation.watch.judge_unpaid()
                evaluation.drawn = True
            if evaluation.context is not None:
                self._instruments.ended(evaluation)
            if not self.is_recording():
                evaluation.outcome = self._silent
                return evaluation.outcome
            # CPU time: what other processes take meanwhile is not telemetry's.
            began_ns, watch = thread_time_ns(), evaluation.watch
            evaluation.duration_ns = evaluation.active_ns()
            self._judge(evaluation, error_type)
            self._governor.judged(evaluation, watch, thread_time_ns() - began_ns)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)
        return evaluation.outcome

    def finish_later(self, evaluation: Evaluation) -> None:
        """As `finish` with success, for finalizers: they run at any moment, also where their thread holds a lock.

        It is judged when the next one begins, or metrics are collected.
        """
        evaluation.end_ns = perf_counter_ns()
        self._postponed.append(evaluation)

    def catch_up(self) -> None:
        """Ends what finalizers have left."""
        while self._postponed:
            with contextlib.suppress(IndexError):  # Another thread may be faster.
                self.finish(self._postponed.popleft())

    def driver_parent(self, evaluation: Evaluation) -> trace.SpanContext | None:
        """What the spans of the database's driver shall have as their parent: the evaluation's SQL, not made yet.

        None where they could not be held back until the evaluation is judged.
        """
        if evaluation.context is None or self._governor.detail == semconv.BASIC:
            return None
        try:
            sampler = self._ordinary if evaluation.drawn else None
            randomness = None if sampler is None else sampler.randomness()
            _set_aside(evaluation)
            return DRIVERS.open(evaluation, self._own.ids(), randomness)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)
            return None

    def _settle_driver(self, evaluation: Evaluation) -> None:
        try:
            DRIVERS.settle(evaluation)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)

    def count_anew(self, meter_provider: metrics.MeterProvider) -> None:
        """Counts with this provider, from nothing; for a forked child, whose parent keeps what it has counted."""
        self._providers = (self._providers[0], meter_provider)
        for watch in self._instruments.watches:
            watch.retire()
        self._count_with(self._get_meter())

    def add_up(self, watch: Watch) -> None:
        """Adds up what waits at a watch."""
        try:
            self._instruments.add_up(watch)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)

    def set_detail(self, detail: str) -> None:
        """Pins how much is recorded, for all expressions and from now on; `auto` leaves it to the governor."""
        self._governor.detail = detail
        for watch in self._instruments.watches:
            watch.changed_at = float("-inf")
            self._governor.choose(watch)
        self._seen = None
        try:
            self._listen()
        except Exception as error:  # noqa: BLE001 -- a provider of the host's own
            self._failed(error)

    def lost(self, what: str, reason: str, count: int = 1) -> None:
        """Counts telemetry that was lost on its way out."""
        self._instruments.lost(what, reason, count)

    def _listen(self) -> bool:
        """Whether a provider does something with what is recorded; looks closer only when one was set.

        Asking the API for its provider costs 0.8 µs, each evaluation twice; so its variable is read, if it is there.
        """
        tracer_provider, meter_provider = self._providers
        seen = (
            tracer_provider is not None or getattr(trace, "_TRACER_PROVIDER", _UNKNOWN) is not None,
            meter_provider is not None or getattr(_metrics_api, "_METER_PROVIDER", _UNKNOWN) is not None,
        )
        if seen != self._seen:
            traces, counts = seen
            listening = (traces and not isinstance(self._get_tracer(), trace.NoOpTracer)) or (
                counts and not isinstance(self._get_meter(), metrics.NoOpMeter)
            )
            switched_off = self._governor.detail == semconv.OFF
            self._silent = _SWITCHED_OFF if switched_off else _NO_SDK
            self.recording = listening and not switched_off
            self._seen = seen
            if self.recording:
                self._governor.calibrate()
        return self.recording

    def _learn(self, watch: Watch, durations: list[int], evaluations: int, spent_ns: int) -> None:
        """From ordinary evaluations that were added up."""
        usual_ns, limit_ns = watch.usual_ns, watch.limit_ns
        if self._ordinary is not None and watch.outcome.reason == semconv.NOT_SELECTED:
            usual_ns = self._ordinary.usual(watch.expression, durations)
            affords = watch.expression is None or self._governor.affords_trace()
            limit_ns = usual_ns if affords else self._ordinary.slow_ns
        watch.limit(usual_ns, limit_ns)
        self._governor.learn(watch, durations, evaluations, spent_ns)

    def _get_tracer(self) -> trace.Tracer:
        return trace.get_tracer(semconv.SCOPE, self._version, self._providers[0], semconv.SCHEMA_URL)

    def _get_meter(self) -> metrics.Meter:
        return metrics.get_meter(semconv.SCOPE, self._version or "", self._providers[1], semconv.SCHEMA_URL)

    def _failed(self, error: Exception, what: str = semconv.WHAT_EVALUATION) -> None:
        if not self._said:
            self._said = True
            _logger.warning(
                "telemetry of an evaluation was lost (%s); the evaluation itself is not affected,"
                " further losses are only counted, in %s",
                type(error).__name__,
                semconv.LOST.name,
            )
        self._instruments.lost(what, semconv.INTERNAL_ERROR)
