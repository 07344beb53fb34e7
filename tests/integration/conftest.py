"""Real OTLP receivers, over gRPC and over HTTP, with and without TLS, that keep what they were sent."""

from __future__ import annotations

import gzip
import os
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@dataclass
class Received:
    """What a receiver was sent: decoded requests, and their headers."""

    endpoint: str
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def keep(self, request: Any, headers: dict[str, str]) -> None:
        signal = (
            self.traces if isinstance(request, trace_service_pb2.ExportTraceServiceRequest) else self.metrics
        )
        signal.append(request)
        self.headers.append(headers)

    def spans(self) -> dict[str, Any]:
        """The spans by name."""
        return {
            span.name: span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    def counts(self, name: str) -> dict[tuple[str, ...], int]:
        """The last values of a counter by the values of its attributes, in the order of their names."""
        return {
            tuple(
                item.value.string_value for item in sorted(point.attributes, key=lambda item: item.key)
            ): point.as_int
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.sum.data_points
        }

    def metric_names(self) -> set[str]:
        return {
            metric.name
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def sums(self, name: str) -> dict[tuple[str, ...], int]:
        """The last values of a sum of whole numbers, by the values of its attributes."""
        return {
            tuple(item.value.string_value for item in point.attributes): point.as_int
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.sum.data_points
        }

    def resources(self) -> list[dict[str, str]]:
        """The attributes of every resource, of both signals."""
        found = [resource.resource for request in self.traces for resource in request.resource_spans]
        found += [resource.resource for request in self.metrics for resource in request.resource_metrics]
        return [{item.key: item.value.string_value for item in resource.attributes} for resource in found]


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(openssl, tmp_path_factory) -> Certificate:
    """A self-signed certificate of localhost."""
    folder = tmp_path_factory.mktemp("certificate")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [
            *(
                openssl,
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", made.key, "-out", made.certificate),
        ],
        check=True,
        capture_output=True,
    )
    return made


@contextmanager
def grpc_receiver(tls: Certificate | None = None) -> Iterator[Received]:
    """A gRPC server for traces and metrics."""
    server = grpc.server(ThreadPoolExecutor(2))
    if tls is None:
        port = server.add_insecure_port("localhost:0")
    else:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    received = Received(f"{'http' if tls is None else 'https'}://localhost:{port}")

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802 -- the name in the protocol
            received.keep(request, dict(context.invocation_metadata()))
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request, context):  # noqa: N802 -- the name in the protocol
            received.keep(request, dict(context.invocation_metadata()))
            return metrics_service_pb2.ExportMetricsServiceResponse()

    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


@contextmanager
def http_receiver(tls: Certificate | None = None) -> Iterator[Received]:
    """An HTTP server for traces and metrics in protobuf."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = (
                trace_service_pb2.ExportTraceServiceRequest()
                if self.path == "/v1/traces"
                else metrics_service_pb2.ExportMetricsServiceRequest()
            )
            request.ParseFromString(body)
            received.paths.add(self.path)
            received.keep(request, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing: what was received is in `received`."""

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    received = Received(f"{'http' if tls is None else 'https'}://localhost:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receivers():
    """The receivers by the protocol's name."""
    return {"grpc": grpc_receiver, "http/protobuf": http_receiver}


@pytest.fixture
def run_script(tmp_path):
    """Runs a script with these variables and no other OpenTelemetry ones; the finished process."""

    def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        # Nor what would come between the process and the receiver of the test: `requests` prefers a bundle of the
        # machine to the certificate that is set, and proxies are asked for localhost too.
        foreign = ("OTEL_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environ |= {"NO_PROXY": "localhost", "no_proxy": "localhost", "PYTHONPATH": str(ROOT)}
        environ |= {"XDG_STATE_HOME": str(tmp_path / "state"), **variables}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run
