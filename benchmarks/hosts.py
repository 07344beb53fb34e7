"""Hosts of a recorder: SDKs that export over OTLP to a process of its own, which throws everything away."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from fhirpath_otel import semconv
from fhirpath_otel.hand_over import CountedMetricExporter, CountedSpanExporter
from fhirpath_otel.telemetry.export_cost import ExportCost

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

HTTP = "OTLP/HTTP"
GRPC = "OTLP/gRPC"
QUEUE = 2_048


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Takes what comes and forgets it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _GrpcSink(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def service(self, _: Any) -> Any:
        """Takes every call; no bytes are an empty response of any kind."""
        return grpc.unary_unary_rpc_method_handler(lambda *_: b"")


def _serve_http(connection: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    connection.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def _serve_grpc(connection: Any) -> None:
    server = grpc.server(ThreadPoolExecutor(2), [_GrpcSink()])
    connection.send(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    server.wait_for_termination()


@contextlib.contextmanager
def sink(protocol: str = HTTP) -> Iterator[str]:
    """The address of an OTLP receiver in another process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    serve = _serve_grpc if protocol == GRPC else _serve_http
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()


class Sdk:
    """An SDK that exports spans and metrics to an address; both are flushed by hand only.

    The processor's own thread never exports: it might while the other side of a pair is timed.
    """

    def __init__(self, protocol: str, address: str) -> None:
        spans: Any
        metrics: Any
        if protocol == GRPC:
            spans = GrpcSpanExporter(endpoint=address, insecure=True)
            metrics = GrpcMetricExporter(endpoint=address, insecure=True)
        else:
            spans = OTLPSpanExporter(f"{address}/v1/traces")
            metrics = OTLPMetricExporter(f"{address}/v1/metrics")
        self.export_cost = ExportCost()
        counted = CountedSpanExporter(spans, None, self.export_cost.add_spans)
        counted.on_taken = counted.on_done = _nothing
        self.processor = BatchSpanProcessor(
            counted,  # type: ignore[arg-type]  # it does what an exporter does
            QUEUE,
            schedule_delay_millis=10**7,
            max_export_batch_size=QUEUE,
        )
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(self.processor)
        exported: Any = CountedMetricExporter(metrics, None, self.export_cost.add_metrics)
        self.reader = PeriodicExportingMetricReader(exported, export_interval_millis=float("inf"))
        self._own = InMemoryMetricReader()
        self.metrics = MeterProvider([self.reader, self._own], shutdown_on_exit=False)

    @property
    def providers(self) -> dict[str, Any]:
        """What a recorder takes, and its governor."""
        return {
            "tracer_provider": self.traces,
            "meter_provider": self.metrics,
            "export_cost": self.export_cost,
        }

    def flush(self) -> None:
        """Exports the spans that wait."""
        self.processor.force_flush()

    def points(self, metric: semconv.Metric) -> list[Any]:
        """The data points of a metric."""
        return points(self._own.get_metrics_data(), metric)

    def shutdown(self) -> None:
        """Ends it."""
        self.traces.shutdown()
        self.metrics.shutdown()


def _nothing(_: int) -> None:
    pass


def points(data: MetricsData | None, metric: semconv.Metric) -> list[Any]:
    """The data points of a metric; none where it has no data."""
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for found in scope.metrics
        if found.name == metric.name
        for point in found.data.data_points
    ]


@contextlib.contextmanager
def disabled_sdk() -> Iterator[dict[str, Any]]:
    """The providers of an SDK that `OTEL_SDK_DISABLED` has switched off."""
    name = "OTEL_SDK_DISABLED"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield {
            "tracer_provider": TracerProvider(shutdown_on_exit=False),
            "meter_provider": MeterProvider(shutdown_on_exit=False),
        }
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
