"""Collectors that are broken in the ways that collectors break."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def hanging() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("localhost", 0)) as server:
        yield f"http://localhost:{server.getsockname()[1]}"


@contextmanager
def refusing() -> Iterator[str]:
    """Nobody listens there."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://localhost:{port}"


@contextmanager
def http_503() -> Iterator[str]:
    """Answers every request that it is not available."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def grpc_unavailable() -> Iterator[str]:
    """Answers every request that it is not available."""

    class Unavailable(
        trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
    ):
        def Export(self, request, context):  # noqa: N802 -- the name in the protocol
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port("localhost:0")
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Unavailable(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Unavailable(), server)
    server.start()
    try:
        yield f"http://localhost:{port}"
    finally:
        server.stop(None).wait()


COLLECTORS = {
    ("hanging", "grpc"): hanging,
    ("hanging", "http/protobuf"): hanging,
    ("refusing", "grpc"): refusing,
    ("refusing", "http/protobuf"): refusing,
    ("503", "http/protobuf"): http_503,
    ("unavailable", "grpc"): grpc_unavailable,
}
