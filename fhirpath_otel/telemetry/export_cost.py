"""What exporting costs this process: the larger part of a kept trace's price, paid on threads of the SDK."""

from __future__ import annotations

from threading import Lock

from fhirpath_otel.telemetry.forks import call_in_forked_child


class ExportCost:
    """Sums of this process, over all exporters that were set up here; they only grow.

    `spans` were handed to exporters, successfully or not, in `spent_ns` of CPU time of the exporting threads;
    `metrics_spent_ns` is that of exporting metrics. What an exporter does on threads of its own (gRPC's input and
    output) is not in it.
    """

    def __init__(self) -> None:
        self.spans = 0
        self.spent_ns = 0
        self.metrics_spent_ns = 0
        self._renew_lock()
        call_in_forked_child(self._renew_lock)

    def add_spans(self, spans: int, spent_ns: int) -> None:
        """Adds one export of spans."""
        with self._lock:
            self.spans += spans
            self.spent_ns += spent_ns

    def add_metrics(self, _: int, spent_ns: int) -> None:
        """Adds one export of metrics."""
        with self._lock:
            self.metrics_spent_ns += spent_ns

    def _renew_lock(self) -> None:
        self._lock = Lock()
