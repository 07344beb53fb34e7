"""Sets up the OpenTelemetry SDK from the standard `OTEL_*` variables, and makes this process's recorder.

Where a host has set a provider already, it stays and is used. Built from the SDK's public classes: the SDK's own
configurator is private, also sets up logging, and raises where we warn. The exporters read their variables
(endpoint, headers, certificate, compression, timeout) themselves.

Without an endpoint and without an exporter asked for, nothing is exported: a command line on a laptop has no
collector, and must not complain about that.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from fhirpath_otel import semconv, settings
from fhirpath_otel.analysis.analyser import Analyser
from fhirpath_otel.errors import UsageError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.template import operator_names
from fhirpath_otel.exporters import METRICS, TRACES, make_exporters
from fhirpath_otel.sampling.own_policies import own_policies
from fhirpath_otel.sampling.policies import Policy, Reasons, TailSampler
from fhirpath_otel.telemetry.driver_context import DRIVERS
from fhirpath_otel.telemetry.governor import Governor
from fhirpath_otel.telemetry.local_files import traces_directory
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.redaction import Disclosure
from fhirpath_otel.telemetry.span_counts import SpanCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

    from fhirpath_otel.local_traces import TraceFileExporter

SERVICE_NAME = "fhirpath-otel"
EXIT_TIMEOUT_SECONDS = 5.0

_logger = logging.getLogger("fhirpath_otel")


@dataclass(slots=True)
class _Sdk:
    """What of the SDK was set up here; empty where the host did, or nothing was asked for."""

    from_variables: bool = False
    tracer_provider: Any = None
    meter_provider: MeterProvider | None = None
    span_processors: list[SpanProcessor] = field(default_factory=list)
    trace_file: TraceFileExporter | None = None


_lock = threading.RLock()
_sdk = _Sdk()
_recorder: Recorder | None = None


def configure(*, local_traces: bool | None = None) -> None:
    """Sets up traces and metrics from the `OTEL_*` variables; not needed under `opentelemetry-instrument`.

    `local_traces` says whether traces are also written to files on this machine; by default they are if
    the setting TRACES_DIRECTORY names a place. A provider that the host has set is left alone and used; only
    `local_traces=True` adds to it. What cannot be set up costs one warning each, and never an exception.
    May be called again: what is there already stays.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    with _lock:
        try:
            _set_up(local_traces)
        except Exception as error:  # noqa: BLE001 -- telemetry never stops its host
            _logger.warning(
                "telemetry could not be set up (%s); evaluations are not affected", type(error).__name__
            )


def recorder() -> Recorder:
    """This process's recorder, made at the first call with the policies and limits of the settings."""
    global _recorder  # noqa: PLW0603 -- one recorder per process is the point
    if _recorder is not None:
        return _recorder
    with _lock:
        if _recorder is None:
            values = settings.current()
            governor = Governor(values.overhead_budget, values.detail)
            reasons, analyser = Reasons(values, own=installed_policies()), Analyser()
            _recorder = Recorder(
                TailSampler(reasons.policies, values.max_traces_per_second, affords=governor.affords_trace),
                analyse=analyser,
                may_find=analyser.may_find,
                ordinary=None if reasons.judges_all else reasons,
                governor=governor,
                dimensions=_names(values.dimensions),
                disclosure=Disclosure(values.capture_expression, _is_resource_type, _is_operator),
                max_expressions=values.max_expressions,
                version=package_version(),
            )
        return _recorder


@functools.cache
def span_counts() -> SpanCounts:
    """Counts into the recorder's series what happens outside of it."""
    meter = metrics.get_meter(semconv.SCOPE, package_version() or "", schema_url=semconv.SCHEMA_URL)
    return SpanCounts(meter)


@functools.cache
def installed_policies() -> tuple[Policy, ...]:
    """The sampling policies that installed packages offer, loaded once."""
    return own_policies(span_counts().count)


def set_detail(detail: str) -> None:
    """How much is recorded of every evaluation from now on: `off`, `basic`, `stages` or `operators`.

    `auto` leaves it to the overhead governor, for each expression. Raises UsageError for anything else.
    """
    allowed = (semconv.AUTO, *semconv.DETAILS)
    if detail not in allowed:
        raise UsageError(f"unknown detail {detail!r}; use one of {', '.join(allowed)}")
    recorder().set_detail(detail)


def trace_file() -> Path | None:
    """The file of this process's local traces; None where there is none, or nothing was written yet."""
    return None if _sdk.trace_file is None else _sdk.trace_file.path


def flush(timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
    """Hands over everything that was recorded; False if that took longer than `timeout` seconds.

    Concerns what `configure` has set up: a host flushes its own providers.
    """
    calls: list[Callable[..., object]] = [item.force_flush for item in _sdk.span_processors]
    if _sdk.meter_provider is not None:
        calls.append(_sdk.meter_provider.force_flush)
    return _call_all(calls, timeout)


def shutdown(timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
    """Flushes and ends what `configure` has set up; False if that took longer than `timeout` seconds.

    Runs by itself when the interpreter exits.
    """
    calls: list[Callable[..., object]] = [item.shutdown for item in _sdk.span_processors]
    if _sdk.meter_provider is not None:
        calls.append(_sdk.meter_provider.shutdown)
    _sdk.span_processors, _sdk.meter_provider = [], None
    return _call_all(calls, timeout)


def _set_up(local_traces: bool | None) -> None:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = trace.get_tracer_provider()
    hosted = not isinstance(provider, trace.ProxyTracerProvider) and provider is not _sdk.tracer_provider
    exporters: list[SpanExporter] = []
    if local_traces is None:
        local_traces = bool(settings.current().traces_directory) and not hosted
    if local_traces and _sdk.trace_file is None:
        _sdk.trace_file = _make_trace_file()
        # First, so that it is also the first to be flushed at exit.
        exporters += [] if _sdk.trace_file is None else [_sdk.trace_file]
    if not _sdk.from_variables:
        _sdk.from_variables = True
        exporters += [] if hosted else make_exporters(TRACES, os.environ)
        _set_up_metrics()
        atexit.register(shutdown)
    if exporters:
        processors = [BatchSpanProcessor(exporter) for exporter in exporters]
        _sdk.span_processors += processors
        if len(_sdk.span_processors) > 1 or hosted:
            # Spans of drivers could not be held back everywhere.
            DRIVERS.give_up()
        _add_processors(provider if hosted else None, processors)


def _make_trace_file() -> TraceFileExporter | None:
    try:
        from fhirpath_otel.local_traces import TraceFileExporter
    except ImportError:
        _logger.warning(
            "traces are not written to local files: that needs another package;"
            " run: pip install 'fhirpath-otel[local]'"
        )
        return None
    values = settings.current()
    return TraceFileExporter(traces_directory(values), values.traces_file_bytes, recorder().lost)


def _add_processors(host: Any, processors: Sequence[SpanProcessor]) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    provider = host
    if host is None and _sdk.tracer_provider is None:
        # Its own exit handler would wait for a dead collector without a bound; ours does not.
        provider = _sdk.tracer_provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    elif host is None:
        provider = _sdk.tracer_provider
    if not hasattr(provider, "add_span_processor"):
        _logger.warning(
            "traces are not written to local files: the host's %s takes no span processors",
            type(provider).__name__,
        )
        return
    for processor in processors:
        provider.add_span_processor(processor)


def _set_up_metrics() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    current = metrics.get_meter_provider()
    # The API's own class stands there until a provider is set; its name is private, its module is not.
    hosted = not type(current).__module__.startswith("opentelemetry.metrics")
    if hosted or isinstance(current, metrics.NoOpMeterProvider):
        return
    exporters = make_exporters(METRICS, os.environ)
    if exporters:
        readers = [
            item if isinstance(item, MetricReader) else PeriodicExportingMetricReader(item)
            for item in exporters
        ]
        _sdk.meter_provider = MeterProvider(readers, resource=_resource(), shutdown_on_exit=False)
        metrics.set_meter_provider(_sdk.meter_provider)


def _resource() -> Resource:
    """The resource of the `OTEL_*` variables, with our name where they give none."""
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create()
    if not str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        return resource
    return resource.merge(Resource({"service.name": SERVICE_NAME}))


def _call_all(calls: list[Callable[..., object]], timeout: float) -> bool:
    """Calls all of them side by side; True if all came back in time.

    One that hangs does not cost the others their last data. At exit from Python 3.12 on no thread can start any
    more; then they run one after the other, with a share of the time each.
    """
    deadline = time.monotonic() + timeout
    done: list[None] = []
    threads: list[threading.Thread] = []
    for number, call in enumerate(calls):
        thread = threading.Thread(target=_call, args=(call, timeout, done), daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:
            _call(call, max(0.0, deadline - time.monotonic()) / (len(calls) - number), done)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return len(done) == len(calls)


def _call(call: Callable[..., object], seconds: float, done: list[None]) -> None:
    bounded = "timeout_millis" in inspect.signature(call).parameters
    try:
        result = call(timeout_millis=seconds * 1000) if bounded else call()
    except Exception as error:  # noqa: BLE001 -- the message may quote what was to be exported
        _logger.warning("telemetry was not handed over completely (%s)", type(error).__name__)
    else:
        if result is not False:
            done.append(None)


def _is_resource_type(name: str) -> bool:
    return name in load_model().resource_types


def _is_operator(name: str) -> bool:
    return name in operator_names(load_model())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def package_version() -> str | None:
    """The version of this package, if it is installed."""
    try:
        return version("fhirpath-otel")
    except PackageNotFoundError:
        return None
