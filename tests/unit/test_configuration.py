"""Setting up the SDK. Providers are global, so each case runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

try:
    import opentelemetry.exporter.otlp.json.common as local_package
except ImportError:
    local_package = None
needs_local = pytest.mark.skipif(
    local_package is None, reason="needs the extra `local`, which needs SDK 1.43"
)

REPORT = """
from opentelemetry import metrics, trace
print(type(trace.get_tracer_provider()).__name__, type(metrics.get_meter_provider()).__name__)
"""
CONFIGURE = "from fhirpath_otel import configuration\nconfiguration.configure()\n"
EVALUATE = """
evaluation = configuration.recorder().begin()
evaluation.expression, evaluation.resource_type = "Patient..name", "Patient"
outcome = configuration.recorder().finish(evaluation, "syntax")
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script with these variables and no other OpenTelemetry ones; its output, and what it said."""

    def run(script, **variables):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environ |= {"XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT), **variables}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr.strip()

    return run


def test_without_any_variable_nothing_is_set_up_and_nothing_said(run):
    assert run(CONFIGURE + REPORT) == ("ProxyTracerProvider _ProxyMeterProvider", "")


def test_an_exporter_that_is_asked_for_sets_up_its_signal_only(run):
    output, said = run(CONFIGURE + REPORT, OTEL_TRACES_EXPORTER="console")
    assert (output, said) == ("TracerProvider _ProxyMeterProvider", "")
    output, said = run(CONFIGURE + REPORT, OTEL_METRICS_EXPORTER="console")
    assert output.startswith("ProxyTracerProvider MeterProvider")
    assert "fhirpath.evaluation.active" in said, "a service that is idle says so"
    assert "fhirpath.evaluation.duration" not in said


def test_a_disabled_sdk_is_not_set_up(run):
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": " True"}
    script = (
        CONFIGURE
        + "configuration.configure(local_traces=True)\n"
        + REPORT
        + EVALUATE
        + "print(outcome.reason)"
    )
    assert run(script, **variables) == ("ProxyTracerProvider _ProxyMeterProvider\nno_sdk", "")


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "fhirpath-otel"),
        ({"OTEL_SERVICE_NAME": "clinic"}, "clinic"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=clinic,team=a"}, "clinic"),
    ],
)
def test_the_service_has_a_name(run, variables, name):
    script = CONFIGURE + "from opentelemetry import trace\n"
    script += "print(trace.get_tracer_provider().resource.attributes['service.name'])"
    assert run(script, OTEL_TRACES_EXPORTER="console", **variables) == (name, "")


def test_the_samplers_variable_stands(run):
    script = CONFIGURE + EVALUATE + "print(outcome.decision, outcome.reason)"
    output, _ = run(script, OTEL_TRACES_EXPORTER="console", OTEL_TRACES_SAMPLER="always_off")
    assert output == "dropped host_sampler"


def test_a_recorder_made_before_the_sdk_is_set_up_uses_it_afterwards(run):
    script = "from fhirpath_otel import configuration\nconfiguration.recorder()\n" + CONFIGURE + EVALUATE
    output, told = run(script, OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="console")
    assert output == ""
    assert '"name": "fhirpath evaluate Patient"' in told
    assert '"name": "fhirpath.telemetry.traces"' in told


def test_the_hosts_providers_stay(run):
    script = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
class Own(TracerProvider): ...
class OwnMeters(MeterProvider): ...
trace.set_tracer_provider(Own())
metrics.set_meter_provider(OwnMeters())
"""
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
    output, said = run(script + CONFIGURE + EVALUATE + REPORT + "print(outcome.kept)", **variables)
    assert (output, said) == ("Own OwnMeters\nTrue", "")


def test_configuring_twice_exports_once(run):
    output, told = run(CONFIGURE + CONFIGURE + EVALUATE, OTEL_TRACES_EXPORTER="console")
    assert output == ""
    assert told.count('"name": "fhirpath evaluate Patient"') == 1


LOCAL = """
from fhirpath_otel import configuration
from fhirpath_otel.telemetry.local_files import read_traces
configuration.configure(local_traces=True)
"""
READ = "print(configuration.flush(), [span.name for span in read_traces(configuration.trace_file())])"


@needs_local
def test_local_traces_are_written_where_they_are_asked_for(run, tmp_path):
    output, said = run(LOCAL + EVALUATE + READ)
    assert (output, said) == ("True ['fhirpath evaluate Patient']", "")
    [file] = (tmp_path / "state" / "fhirpath-otel" / "traces").iterdir()
    assert file.name.endswith(".otlp.jsonl")


@needs_local
def test_a_directory_in_the_settings_asks_for_local_traces(run, tmp_path):
    run(CONFIGURE + EVALUATE, OTEL_PYTHON_FHIRPATH_TRACES_DIRECTORY=str(tmp_path / "here"))
    assert len(list((tmp_path / "here").iterdir())) == 1


@needs_local
def test_local_traces_can_be_added_later_and_to_a_hosts_provider(run):
    assert run(CONFIGURE + LOCAL + LOCAL + EVALUATE + READ)[0] == "True ['fhirpath evaluate Patient']"
    host = "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
    host += "trace.set_tracer_provider(TracerProvider())\n"
    assert run(host + LOCAL + EVALUATE + READ)[0] == "True ['fhirpath evaluate Patient']"


@needs_local
def test_a_host_without_span_processors_costs_one_warning(run):
    host = "from opentelemetry import trace\ntrace.set_tracer_provider(trace.NoOpTracerProvider())\n"
    output, said = run(host + LOCAL + EVALUATE + "print(outcome.reason)")
    assert output == "no_sdk"
    assert (
        said
        == "traces are not written to local files: the host's NoOpTracerProvider takes no span processors"
    )


def test_without_the_package_for_local_files_the_warning_says_what_to_install(run):
    missing = "import sys\nsys.modules['opentelemetry.exporter.otlp.json.common.trace_encoder'] = None\n"
    output, said = run(missing + LOCAL + EVALUATE + "print(outcome.reason)")
    assert output == "no_sdk"
    assert said == (
        "traces are not written to local files: that needs another package;"
        " run: pip install 'fhirpath-otel[local]'"
    )


def test_what_breaks_while_setting_up_stays_away_from_the_host(run):
    broken = "from fhirpath_otel import configuration\n"
    broken += "def fail(*_): raise RuntimeError('CANARY')\nconfiguration._sdk._get_resource = fail\n"
    output, said = run(
        broken + CONFIGURE + EVALUATE + "print(outcome.reason)", OTEL_TRACES_EXPORTER="console"
    )
    assert output == "no_sdk"
    assert said == "telemetry could not be set up (RuntimeError); evaluations are not affected"


HANG = """
import threading
from fhirpath_otel import configuration
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
release = threading.Event()
ConsoleSpanExporter.export = lambda self, spans: release.wait()
configuration.configure(local_traces=True)
"""


@needs_local
def test_an_exporter_that_hangs_delays_flush_and_exit_within_their_bounds(run):
    script = HANG + EVALUATE
    script += "print(configuration.flush(0.2), len(open(configuration.trace_file()).readlines()))\n"
    script += "print(configuration.shutdown(0.2), configuration.shutdown(0.2))"
    output, _ = run(script, OTEL_TRACES_EXPORTER="console")
    assert output == "False 1\nFalse True"


@needs_local
def test_exit_flushes_what_was_recorded(run, tmp_path):
    run(LOCAL + EVALUATE)
    [file] = (tmp_path / "state" / "fhirpath-otel" / "traces").iterdir()
    assert b"fhirpath evaluate Patient" in file.read_bytes()


HOST = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
memory, collected = InMemorySpanExporter(), []
class Metrics(MetricExporter):
    def export(self, data, *_, **__): collected.append(data)
    def force_flush(self, *_, **__): return True
    def shutdown(self, *_, **__): pass
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(BatchSpanProcessor(memory, schedule_delay_millis=10**8))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(Metrics(), 10**8)], shutdown_on_exit=False))
"""


@pytest.mark.parametrize("configure", ["", CONFIGURE])
def test_flush_hands_over_what_a_host_has_not_exported_yet(run, configure):
    script = (
        HOST + configure + "from fhirpath_otel import configuration\nimport fhirpath_otel as fo\n" + EVALUATE
    )
    script += "print(len(memory.get_finished_spans()), len(collected))\n"
    script += "print(fo.flush(20.0), len(memory.get_finished_spans()) > 0, len(collected) > 0)"
    assert run(script) == ("0 0\nTrue True True", "")


def test_flush_says_false_where_a_host_cannot_be_flushed_and_does_not_raise(run):
    script = HOST + "def fail(*_, **__): raise RuntimeError('CANARY')\nprovider.force_flush = fail\n"
    output, said = run(script + "import fhirpath_otel as fo\nprint(fo.flush(20.0), len(collected))")
    assert (output, said) == ("False 1", "telemetry was not handed over completely (RuntimeError)")


def test_without_any_provider_there_is_nothing_to_flush_or_to_shut_down(run):
    assert run("import fhirpath_otel as fo\nprint(fo.flush(), fo.shutdown())") == ("True True", "")


def test_what_exporting_costs_can_be_read(run):
    script = CONFIGURE + EVALUATE + "cost = configuration.export_cost()\n"
    script += "before = cost.spans, cost.spent_ns, cost.metrics_spent_ns\nprint(before, configuration.flush(20.0))\n"
    script += "print(cost.spans, cost.spent_ns > 0, cost.metrics_spent_ns > 0)"
    output, _ = run(script, OTEL_TRACES_EXPORTER="console", OTEL_METRICS_EXPORTER="console")
    assert output == "(0, 0, 0) True\n1 True True"


def test_flush_says_false_where_an_exporter_failed(run):
    fails = "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult\n"
    fails += "ConsoleSpanExporter.export = lambda self, spans: SpanExportResult.FAILURE\n"
    output, said = run(
        fails + CONFIGURE + EVALUATE + "print(configuration.flush(20.0), configuration.flush(20.0))",
        OTEL_TRACES_EXPORTER="console",
    )
    assert output == "False True"
    assert said.startswith("spans could not be exported (the exporter says so); they are lost and counted in")


ASKED_FOR = {"OTEL_TRACES_EXPORTER": "console"}
REFUSED_NAME = "service.name would not pass the bundled collector"


@pytest.mark.parametrize("name", ["Klinik Süd", "clinic@home", "-clinic", "c" * 129, "a\nb"])
@pytest.mark.parametrize("of", ["OTEL_SERVICE_NAME={}", "OTEL_RESOURCE_ATTRIBUTES=service.name={}"])
def test_a_name_that_would_not_pass_the_collector_is_told_once(run, of, name):
    variable, _, value = of.format(name).partition("=")
    _, said = run(CONFIGURE + "configuration.configure()\n", **ASKED_FOR, **{variable: value})
    assert said.count(REFUSED_NAME) == 1
    assert "OTEL_SERVICE_NAME" in said
    assert name not in said


@pytest.mark.parametrize("name", ["clinic", "Clinic South 2", "clinic.example/a:b+c_d-e", "c" * 128])
def test_a_name_that_passes_costs_no_warning(run, name):
    assert run(CONFIGURE, **ASKED_FOR, OTEL_SERVICE_NAME=name)[1] == ""


def test_where_nothing_is_sent_a_name_is_nobodys_concern(run):
    assert run(CONFIGURE, OTEL_SERVICE_NAME="Klinik Süd")[1] == ""


HOST_OF_A_NAME = """
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
"""


def test_the_name_of_a_host_is_told_too(run):
    provider = (
        "trace.set_tracer_provider(TracerProvider(resource=Resource({'service.name': 'Klinik Süd'})))\n"
    )
    assert run(HOST_OF_A_NAME + provider + CONFIGURE)[1].count(REFUSED_NAME) == 1


@pytest.mark.parametrize("resource", ["1 / 0", "None", "Resource({'service.name': 7})"])
def test_a_host_whose_name_cannot_be_told_is_left_in_peace(run, resource):
    provider = f"class Own(TracerProvider):\n    @property\n    def resource(self): return {resource}\n"
    script = HOST_OF_A_NAME + provider + "trace.set_tracer_provider(Own.__new__(Own))\n" + CONFIGURE + REPORT
    output, said = run(script, OTEL_METRICS_EXPORTER="console")
    assert output.startswith("Own MeterProvider")
    assert "could not be set up" not in said
    assert "Traceback" not in said
