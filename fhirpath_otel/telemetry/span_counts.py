"""What is counted where spans are judged outside of the recorder: decisions, findings, and what was lost."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry import metrics

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.series import NO_SPAN

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

    from fhirpath_otel.telemetry.finding import Finding

_logger = logging.getLogger("fhirpath_otel")


class SpanCounts:
    """Counters of a meter; the SDK adds them to those of the recorder, which have the same names.

    An exporter is made before there is a provider of metrics. What is lost until then is counted afterwards.
    """

    def __init__(self, meter: Meter) -> None:
        self._traces, self._findings, self._lost = (
            meter.create_counter(metric.name, metric.unit, metric.meaning)
            for metric in (semconv.TRACES, semconv.FINDINGS, semconv.LOST)
        )
        self._said: set[str] = set()
        self._early: Counter[tuple[str, str]] = Counter()

    def decided(self, decision: str, reason: str) -> None:
        """Counts what became of the trace of an evaluation."""
        self._traces.add(1, {semconv.DECISION.name: decision, semconv.DECISION_REASON.name: reason}, NO_SPAN)

    def found(self, findings: Iterable[Finding]) -> None:
        """Counts findings."""
        for finding in findings:
            attributes = {
                semconv.FINDING_RULE.name: finding.rule,
                semconv.FINDING_SEVERITY.name: finding.severity,
                semconv.FINDING_STAGE.name: finding.stage,
            }
            self._findings.add(1, attributes, NO_SPAN)

    def count(self, what: str, reason: str, count: int = 1) -> None:
        """Counts telemetry that was lost, and says nothing."""
        if not _is_counted():
            self._early[what, reason] += count
            return
        self.catch_up()
        self._lost.add(count, {semconv.LOST_WHAT.name: what, semconv.LOST_REASON.name: reason}, NO_SPAN)

    def catch_up(self) -> None:
        """Counts what was lost before somebody counted."""
        if self._early and _is_counted():
            early, self._early = self._early, Counter()
            for (what, reason), count in early.items():
                self.count(what, reason, count)

    def lost(self, what: str, reason: str, count: int = 1) -> None:
        """Counts telemetry that was lost; the first time of each reason is also said."""
        self.count(what, reason, count)
        if reason not in self._said and reason != semconv.EVALUATION_DROPPED:
            self._said.add(reason)
            _logger.warning(
                "telemetry was lost (%s: %s); evaluations are not affected, further losses are only counted, in %s",
                what,
                reason,
                semconv.LOST.name,
            )

    def lost_all(self, what: str, counts: Mapping[str, int]) -> None:
        """Counts losses by their reasons."""
        for reason, count in counts.items():
            self.lost(what, reason, count)

    def failed(self, what: str) -> None:
        """Counts a failure of ours."""
        self.lost(what, semconv.INTERNAL_ERROR)


def _is_counted() -> bool:
    # The API's own class stands there until a provider is set; its name is private, its module is not.
    return not type(metrics.get_meter_provider()).__module__.startswith("opentelemetry.metrics")
