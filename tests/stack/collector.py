"""One collector with the repository's configuration, on ports and in a folder of its own."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from tests.stack.clients import eventually, get_text
from tools.stack import services
from tools.stack.ports import free_ports

CONFIGURATION = Path(__file__).parents[2] / "collector-config"
PORTS = tuple(port.variable for port in services.PORTS if port.service == "otelcol")


def command(program, *overlays):
    configurations = [CONFIGURATION / "otelcol.yaml", *overlays]
    return [str(program), *(word for path in configurations for word in ("--config", str(path)))]


class Collector:
    """A running collector; `traces` and `metrics` send to it."""

    def __init__(self, program, folder, backend, *overlays, **variables):
        free = free_ports()
        self.ports = {name: free[name] for name in PORTS}
        self._folder = folder
        self._environment = {
            **{name: item for name, item in os.environ.items() if not name.startswith("OTEL_")},
            **self.ports,
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
        try:
            eventually(self._is_ready)
        except BaseException:
            # Nobody has it yet who could stop it.
            self.process.kill()
            self.process.wait()
            raise
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.ports['OTLP_GRPC_PORT']}")
        self.traces = TraceServiceStub(self._channel).Export
        self.metrics = MetricsServiceStub(self._channel).Export

    def _is_ready(self):
        if self.process.poll() is not None:
            pytest.fail(f"the collector has ended:\n{self.log()}")
        return self.get("OTELCOL_HEALTH_PORT", "/")

    def get(self, port, path="/metrics"):
        return get_text(
            f"http://127.0.0.1:{self.ports[port]}{path}", "application/openmetrics-text; version=1.0.0"
        )

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
