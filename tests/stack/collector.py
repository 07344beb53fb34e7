"""One collector with the repository's configuration, on ports and in a folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

CONFIGURATION = Path(__file__).parents[2] / "collector-config"
PORTS = (
    "OTLP_GRPC_PORT",
    "OTLP_HTTP_PORT",
    "OTELCOL_HEALTH_PORT",
    "OTELCOL_TELEMETRY_PORT",
    "OTELCOL_METRICS_PORT",
)


def eventually(what, seconds=30.0):
    """What this returns, once it is true."""
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return result


def free_ports():
    sockets = {name: socket.socket() for name in PORTS}
    for one in sockets.values():
        one.bind(("127.0.0.1", 0))
    ports = {name: one.getsockname()[1] for name, one in sockets.items()}
    for one in sockets.values():
        one.close()
    return ports


def command(program, *overlays):
    configurations = [CONFIGURATION / "otelcol.yaml", *overlays]
    return [str(program), *(word for path in configurations for word in ("--config", str(path)))]


class Collector:
    """A running collector; `traces` and `metrics` send to it."""

    def __init__(self, program, folder, backend, *overlays, **variables):
        self.ports = free_ports()
        self._folder = folder
        self._environment = {
            **{name: item for name, item in os.environ.items() if not name.startswith("OTEL_")},
            **{name: str(port) for name, port in self.ports.items()},
            "OTELCOL_STORAGE": str(folder / "queue"),
            "JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{backend.port}",
            "DECISION_WAIT": "1s",
            **variables,
        }
        self._command = command(program, *overlays)
        self.start()

    def start(self):
        self._folder.mkdir(exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )
        eventually(self._is_ready)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.ports['OTLP_GRPC_PORT']}")
        self.traces = TraceServiceStub(self._channel).Export
        self.metrics = MetricsServiceStub(self._channel).Export

    def _is_ready(self):
        assert self.process.poll() is None, self.log()
        try:
            return self.get("OTELCOL_HEALTH_PORT", "/")
        except OSError:
            return None

    def get(self, port, path="/metrics"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[port]}{path}",
            headers={"Accept": "application/openmetrics-text; version=1.0.0"},
        )
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 -- http, as above
            return response.read().decode()

    def series(self, start):
        """The lines of the metrics for Prometheus that begin so."""
        return [line for line in self.get("OTELCOL_METRICS_PORT").splitlines() if line.startswith(start)]

    def log(self):
        return (self._folder / "log").read_text(encoding="utf-8")

    def kill(self):
        self._channel.close()
        self.process.kill()
        self.process.wait()

    def stop(self):
        self._channel.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(program, folder, backend, *overlays, **variables):
    collector = Collector(program, folder, backend, *overlays, **variables)
    try:
        yield collector
    finally:
        collector.stop()
