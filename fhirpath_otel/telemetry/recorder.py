"""The hot path: what happens in an evaluation is noted as tuples, and judged when it ends.

A span of the SDK costs about 25 µs, a tuple 0.1 µs; so stages are tuples, and only evaluations whose trace is kept
become spans, through the API with explicit times (`spans.py`). Metrics count every evaluation (`metrics.py`). Who
is kept is decided by an injected function (`fhirpath_otel.sampling`), what was slow is found by another
(`fhirpath_otel.analysis`). Nothing here ever raises into the host.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from time import perf_counter_ns

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import redaction
from fhirpath_otel.telemetry.evaluation import Decision, Evaluation, Outcome
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.metrics import Instruments
from fhirpath_otel.telemetry.own_tracer import OwnTracer
from fhirpath_otel.telemetry.redaction import Disclosure
from fhirpath_otel.telemetry.spans import write_spans

__all__ = ["Analyse", "Decide", "Decision", "Evaluation", "Outcome", "Recorder"]

Analyse = Callable[[Evaluation], tuple[Finding, ...]]
Decide = Callable[[Evaluation], Decision]

_STAGES = frozenset(semconv.STAGES)
_UNKNOWN = object()
_metrics_api = sys.modules.get("opentelemetry.metrics._internal")
_name = itemgetter(0)

_logger = logging.getLogger("fhirpath_otel")

_NO_SDK = Outcome(False, semconv.DROPPED, semconv.NO_SDK)
_LOST = Outcome(False, semconv.DROPPED, semconv.INTERNAL_ERROR)
_UNSAMPLED_PARENT = Outcome(False, semconv.DROPPED, semconv.UNSAMPLED_PARENT)


def _finds_nothing(_: Evaluation) -> tuple[Finding, ...]:
    return ()


class Recorder:
    """Takes evaluations from begin to finish. Threads may share it.

    `analyse` says what was slow in an evaluation, `decide` whose trace is kept, `disclosure` what telemetry may show;
    by default templates, and no names of types. Without providers the global ones are used, also when they are set
    later. While neither of them does anything (none is set, or `OTEL_SDK_DISABLED`), an evaluation is neither judged
    nor counted.
    """

    def __init__(
        self,
        decide: Decide,
        *,
        analyse: Analyse = _finds_nothing,
        disclosure: Disclosure | None = None,
        max_expressions: int = 200,
        version: str | None = None,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._decide = decide
        self._analyse = analyse
        self._disclosure = disclosure or Disclosure()
        self._max_expressions = max_expressions
        self._version = version
        self._providers = (tracer_provider, meter_provider)
        self._own, meter = OwnTracer(version, tracer_provider), self._get_meter()
        self._instruments = Instruments(meter, self._disclosure, max_expressions)
        self._said = False
        self._listening = False
        self._seen = (False, False)

    def begin(self) -> Evaluation:
        """The notes of an evaluation that begins now, as a child of the span that is current here."""
        try:
            if not (self._listening or self._listen()):
                return Evaluation()
            evaluation = Evaluation(otel_context.get_current())
            self._instruments.begun(evaluation)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)
            return Evaluation()
        return evaluation

    def finish(self, evaluation: Evaluation, error_type: str | None = None) -> Outcome:
        """Ends an evaluation: decides, writes spans if kept, counts. A second call returns the first outcome."""
        if evaluation.outcome is not None:
            return evaluation.outcome
        evaluation.end_ns = perf_counter_ns()
        if not (self._listening or self._listen()):
            evaluation.outcome = _NO_SDK
            return _NO_SDK
        evaluation.outcome = _LOST
        try:
            self._instruments.ended(evaluation)
            self._judge(evaluation, error_type)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)
        return evaluation.outcome

    def count_anew(self, meter_provider: metrics.MeterProvider) -> None:
        """Counts with this provider, from nothing; for a forked child, whose parent keeps what it has counted."""
        self._providers = (self._providers[0], meter_provider)
        self._instruments = Instruments(self._get_meter(), self._disclosure, self._max_expressions)

    def lost(self, what: str, reason: str, count: int = 1) -> None:
        """Counts telemetry that was lost on its way out."""
        self._instruments.lost(what, reason, count)

    def _judge(self, evaluation: Evaluation, error_type: str | None) -> None:
        if error_type is not None:
            evaluation.error_type = redaction.error_type(error_type)
        if evaluation.template is None and evaluation.expression is not None:
            evaluation.template = redaction.unparsable(evaluation.expression)
        if not _STAGES.issuperset(map(_name, evaluation.stages)):
            raise ValueError("not a stage of an evaluation")
        evaluation.duration_ns = evaluation.active_ns()
        caller = trace.get_current_span(evaluation.context).get_span_context()
        evaluation.caller = caller if caller.is_valid else None
        evaluation.findings = self._find(evaluation)
        outcome, context = self._sample(evaluation)
        # It may wait to be counted, and must not keep alive what its caller has in there.
        evaluation.context = None
        evaluation.outcome = outcome
        self._instruments.record(evaluation, context)

    def _sample(self, evaluation: Evaluation) -> tuple[Outcome, otel_context.Context | None]:
        """What becomes of the trace, and the context of the root span if it was kept."""
        if evaluation.caller is not None and not evaluation.caller.trace_flags.sampled:
            return _UNSAMPLED_PARENT, None
        decision = self._decide(evaluation)
        if decision.kept:
            return write_spans(self._own.tracer(), evaluation, decision, self._disclosure)
        return _not_kept(decision.reason), None

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
            self._listening = (traces and not isinstance(self._get_tracer(), trace.NoOpTracer)) or (
                counts and not isinstance(self._get_meter(), metrics.NoOpMeter)
            )
            self._seen = seen
        return self._listening

    def _get_tracer(self) -> trace.Tracer:
        return trace.get_tracer(semconv.SCOPE, self._version, self._providers[0], semconv.SCHEMA_URL)

    def _get_meter(self) -> metrics.Meter:
        return metrics.get_meter(semconv.SCOPE, self._version or "", self._providers[1], semconv.SCHEMA_URL)

    def _find(self, evaluation: Evaluation) -> tuple[Finding, ...]:
        try:
            return self._analyse(evaluation)
        except Exception as error:  # noqa: BLE001 -- a rule that fails costs its findings only
            self._failed(error, semconv.WHAT_FINDING)
            return ()

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


@lru_cache(maxsize=64)
def _not_kept(reason: str) -> Outcome:
    return Outcome(False, semconv.SUPPRESSED if reason in semconv.REASONS else semconv.DROPPED, reason)
