"""Judges evaluations that are not ordinary: asks the rules and the sampler, writes the spans, counts.

The recorder has the way that most evaluations take; this is for those that failed, were slow, were chosen, or of which
nothing is known yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import redaction
from fhirpath_otel.telemetry.evaluation import Decision, Evaluation, Outcome
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.spans import write_spans

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.governor import Governor
    from fhirpath_otel.telemetry.memory_metrics import MemoryMetrics
    from fhirpath_otel.telemetry.memory_sampler import MemorySampler
    from fhirpath_otel.telemetry.metrics import Instruments
    from fhirpath_otel.telemetry.own_tracer import OwnTracer
    from fhirpath_otel.telemetry.redaction import Disclosure
    from fhirpath_otel.telemetry.watch import Known, Watch
    from fhirpath_otel.telemetry.watches import Callers, Kind, Watches

Analyse = Callable[[Evaluation], tuple[Finding, ...]]
Decide = Callable[[Evaluation], Decision]
Failed = Callable[[Exception, str], None]

EMPTY = Context()

_STAGES = frozenset(semconv.STAGES)
_UNSAMPLED_PARENT = Outcome(False, semconv.DROPPED, semconv.UNSAMPLED_PARENT)
_name = itemgetter(0)


@dataclass(slots=True, kw_only=True)
class Judge:
    """What a recorder needs to judge an evaluation; its parts are the recorder's. Threads may share it."""

    decide: Decide
    analyse: Analyse
    failed: Failed
    tracer: OwnTracer
    disclosure: Disclosure
    governor: Governor
    callers: Callers
    instruments: Instruments
    watches: Watches | None
    memory: MemorySampler | None
    memory_metrics: MemoryMetrics | None

    def __call__(self, evaluation: Evaluation, error_type: str | None) -> None:
        """Judges an evaluation that has ended, and says in it what became of its trace."""
        if error_type is not None:
            evaluation.error_type = redaction.error_type(error_type)
        if evaluation.template is None and evaluation.expression is not None:
            evaluation.template = redaction.unparsable(evaluation.expression)
        if not _STAGES.issuperset(map(_name, evaluation.stages)):
            raise ValueError("not a stage of an evaluation")
        if evaluation.watch is None and evaluation.from_caller is None:
            evaluation.detail = self.governor.first_detail()
        caller = evaluation.from_caller or self.callers.caller(evaluation.context or EMPTY)
        evaluation.caller, evaluation.dimensions = caller.span, caller.dimensions
        if self.memory is not None:
            self.memory.end(evaluation)
        if not evaluation.analysed:
            self.finds(evaluation, evaluation.end_ns)
        outcome, root = self._sample(evaluation)
        watch, known = evaluation.watch, evaluation.known
        # It may wait to be counted, and must not keep alive what its caller has in there.
        evaluation.context = evaluation.from_caller = evaluation.known = None
        evaluation.watch = None
        evaluation.outcome = outcome
        self.instruments.record(evaluation, root)
        if self.memory_metrics is not None:
            self.memory_metrics.record(evaluation, root)
        if watch is None and known is not None and caller.kind is not None and error_type is None:
            watch = self._watch(evaluation, caller.kind, known)
        if watch is not None:
            watch.settle(outcome.kept or outcome.reason != semconv.FIRST_SIGHTING)

    def finds(self, evaluation: Evaluation, ended_ns: int) -> bool:
        """Asks the rules."""
        evaluation.end_ns = ended_ns
        evaluation.duration_ns = evaluation.active_ns()
        evaluation.caller = self.callers.caller(evaluation.context or EMPTY).span
        evaluation.analysed = True
        try:
            evaluation.findings = self.analyse(evaluation)
        except Exception as error:  # noqa: BLE001 -- a rule that fails costs its findings only
            self.failed(error, semconv.WHAT_FINDING)
        return bool(evaluation.findings)

    def _sample(self, evaluation: Evaluation) -> tuple[Outcome, Context | None]:
        """What becomes of the trace, and the context of the root span if it was kept."""
        if evaluation.caller is not None and not evaluation.caller.trace_flags.sampled:
            return _UNSAMPLED_PARENT, None
        decision = self.decide(evaluation)
        if decision.kept:
            with_stages = self.governor.detail != semconv.BASIC
            tracer = self.tracer.tracer()
            return write_spans(tracer, evaluation, decision, self.disclosure, with_stages=with_stages)
        return _not_kept(decision.reason), None

    def _watch(self, evaluation: Evaluation, kind: Kind, known: Known) -> Watch | None:
        """The watch for the evaluations that follow this one."""
        watch = None if self.watches is None else self.watches.watch(evaluation, kind)
        if watch is not None:
            if self.governor.detail != semconv.AUTO:
                self.governor.choose(watch)
            known.add(kind, watch)
        return watch


@lru_cache(maxsize=64)
def _not_kept(reason: str) -> Outcome:
    return Outcome(False, semconv.DROPPED if reason == semconv.NOT_SELECTED else semconv.SUPPRESSED, reason)
