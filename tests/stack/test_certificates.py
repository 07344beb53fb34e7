"""docs/stack.md: its commands for certificates, as they stand there, with the real collector and the Python SDK."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.clients import eventually
from tests.stack.collector import CONFIGURATION, running
from tests.stack.otlp import Backend

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("openssl")]

PAGE = (Path(__file__).parents[2] / "docs" / "stack.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE.partition("### Certificates")[2], re.MULTILINE | re.DOTALL)
MAKE, COLLECTOR, APPLICATION, BACKEND = COMMANDS[:4]

SENDS_A_SPAN = """
from opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(timeout=2)))
provider.get_tracer("x").start_span("s", attributes={{"fhirpath.sampling.reason": "baseline"}}).end()
"""


# With these `requests`, and so the exporter over HTTP, trusts others than the exporter's variables say; the page tells.
BUNDLES = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
UNTOLD = {
    name: value for name, value in os.environ.items() if not name.startswith("OTEL_") and name not in BUNDLES
}


def shell(folder, commands):
    return subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=UNTOLD,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def exported(folder, commands):
    """The variables that these commands export, without doing what they do with `make`."""
    lines = [line for line in commands.splitlines() if line.startswith("export ")]
    said = shell(folder, "\n".join([*lines, "env"])).stdout
    names = set(re.findall(r"(\w+)=", "\n".join(lines)))
    return {
        name: value for name, _, value in (line.partition("=") for line in said.splitlines()) if name in names
    }


@pytest.mark.parametrize(("protocol", "port"), [("grpc", "OTLP_GRPC_PORT"), ("http", "OTLP_HTTP_PORT")])
def test_applications_are_heard_with_the_certificates_of_the_page(stack_programs, tmp_path, protocol, port):
    shell(tmp_path, MAKE)
    overlay = CONFIGURATION / "otelcol-mtls.yaml"
    assert f"OVERLAYS=collector-config/{overlay.name}" in COLLECTOR
    backend = Backend()
    with running(
        stack_programs["otelcol"], tmp_path / "run", backend, overlay, **exported(tmp_path, COLLECTOR)
    ) as collector:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{collector.ports[port]}"}
        application = exported(tmp_path, APPLICATION) | endpoint
        send = [sys.executable, "-c", SENDS_A_SPAN.format(protocol=protocol)]
        without = {name: value for name, value in application.items() if "CLIENT" not in name}
        for variables in (without, application):
            subprocess.run(send, env=UNTOLD | variables, check=True, capture_output=True, timeout=60)
            if variables is without:
                assert not backend.spans
        eventually(lambda: backend.spans)
    backend.stop()


def test_what_the_page_sets_for_another_backend_is_what_the_overlay_reads(tmp_path):
    shell(tmp_path, MAKE)
    overlay = CONFIGURATION / "otelcol-backend-tls.yaml"
    assert f"OVERLAYS=collector-config/{overlay.name}" in BACKEND
    given = exported(tmp_path, BACKEND)
    assert set(re.findall(r"\$\{env:(\w+)", overlay.read_text(encoding="utf-8"))) <= set(given)
    assert all(Path(value).is_file() for name, value in given.items() if name.endswith("_FILE"))


def test_the_page_tells_what_goes_before_the_exporters_variables():
    assert all(f"`{name}`" in PAGE for name in BUNDLES)
