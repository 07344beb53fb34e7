"""Metrics of memory: of the process, of the databases in it, and of long evaluations."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import Observation

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.series import NO_SPAN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter

    from fhirpath_otel.telemetry.database_memory import OpenDatabases
    from fhirpath_otel.telemetry.evaluation import Evaluation
    from fhirpath_otel.telemetry.resident_memory import ResidentMemory

_SYSTEM_METRICS = "opentelemetry.instrumentation.system_metrics"


class MemoryMetrics:
    """The instruments of one meter. The gauges are read when metrics are collected."""

    def __init__(self, meter: Meter, resident: ResidentMemory, databases: OpenDatabases) -> None:
        self._resident = resident
        self._databases = databases
        rise, process = semconv.EVALUATION_MEMORY_RISE, semconv.PROCESS_MEMORY_USAGE
        memory, temp = semconv.DATABASE_MEMORY_USAGE, semconv.DATABASE_TEMP_USAGE
        self._rise = meter.create_histogram(
            rise.name, rise.unit, rise.meaning, explicit_bucket_boundaries_advisory=rise.boundaries
        )
        for metric, observe in (
            (process, self._observe_process),
            (memory, self._observe_memory),
            (temp, self._observe_temp),
        ):
            meter.create_observable_up_down_counter(metric.name, [observe], metric.unit, metric.meaning)

    def record(self, evaluation: Evaluation, context: Context | None) -> None:
        """Counts a finished evaluation, if its memory was measured; `context` holds its root span if it was kept."""
        if evaluation.rss_start is None or evaluation.rss_peak is None:
            return
        mode = evaluation.execution_mode
        if mode not in semconv.EXECUTION_MODE.values:
            mode = semconv.OTHER
        attributes = {semconv.EXECUTION_MODE.name: mode}
        self._rise.record(evaluation.rss_peak - evaluation.rss_start, attributes, context or NO_SPAN)

    def _observe_process(self, _: CallbackOptions) -> Iterable[Observation]:
        size = None if self._resident.only_peaks or _host_reports_process() else self._resident.read()
        return [] if size is None else [Observation(size)]

    def _observe_memory(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(in_use.memory, {semconv.DB_SYSTEM_NAME.name: system})
            for system, in_use in self._databases.totals().items()
        ]

    def _observe_temp(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(in_use.temporary, {semconv.DB_SYSTEM_NAME.name: system})
            for system, in_use in self._databases.totals().items()
        ]


def _host_reports_process() -> bool:
    """Whether OpenTelemetry's own instrumentation of system metrics is at work and gives the same figure.

    Looked up each time, because a host may begin with it, or end it, at any moment. The instrumentor is a singleton
    that resets itself when it is called, so its class is asked for it.
    """
    instrumentor: Any = getattr(sys.modules.get(_SYSTEM_METRICS), "SystemMetricsInstrumentor", None)
    instance = getattr(instrumentor, "_instance", None)
    if not getattr(instance, "is_instrumented_by_opentelemetry", False):
        return False
    chosen = getattr(instance, "_config", None)
    return chosen is None or semconv.PROCESS_MEMORY_USAGE.name in chosen
