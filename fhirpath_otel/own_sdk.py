"""The OpenTelemetry SDK as this package sets it up: its providers, exporters and their way through forks and exits.

Built from the SDK's public classes: the SDK's own configurator is private, also sets up logging, and raises where we
warn. The exporters read their variables (endpoint, headers, certificate, compression, timeout) themselves.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from opentelemetry import metrics, trace

from fhirpath_otel import semconv, settings
from fhirpath_otel.bounded_calls import Function, OwnThread, call_all
from fhirpath_otel.exporters import METRICS, TRACES, exporter_factories
from fhirpath_otel.service_name import warn_of_service_name
from fhirpath_otel.telemetry.driver_context import DRIVERS
from fhirpath_otel.telemetry.export_cost import ExportCost
from fhirpath_otel.telemetry.forks import call_in_forked_child
from fhirpath_otel.telemetry.local_files import traces_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

    from fhirpath_otel.hand_over import CountedMetricExporter, CountedSpanExporter, CountedSpanProcessor
    from fhirpath_otel.local_traces import TraceFileExporter
    from fhirpath_otel.telemetry.recorder import Recorder

SERVICE_NAME = "fhirpath-otel"
EXIT_TIMEOUT_SECONDS = 5.0

TRACES_SHARE = 0.6
"""Of the time to flush or shut down; metrics come afterwards, so that they can tell which spans were lost."""

INHERITED_SECONDS = 0.5
"""So long a forked child waits for metrics of others that its parent had set up."""

_INSTANCE = "service.instance.id"

_logger = logging.getLogger("fhirpath_otel")


class OwnSdk:
    """What of the SDK was set up here; empty where the host did, or nothing was asked for.

    `meter_provider` is the one that our metrics have to use, where it is not the global one: in a forked child. There
    they start from nothing, since what the parent had added up is the parent's; metrics of others that were set up
    here go on as the SDK has it.
    """

    def __init__(self, recorder: Callable[[], Recorder]) -> None:
        self.trace_file: TraceFileExporter | None = None
        self.meter_provider: MeterProvider | None = None
        self.export_cost = ExportCost()
        self._recorder = recorder
        self._from_variables = False
        self._follows_forks = False
        self._resource: Resource | None = None
        self._tracer_provider: Any = None
        self._processors: dict[CountedSpanProcessor, OwnThread] = {}
        self._meter_providers: dict[Any, OwnThread] = {}
        self._metric_exporters: list[CountedMetricExporter] = []
        self._inherited: dict[Any, OwnThread | None] = {}
        self._hosts: dict[Any, OwnThread] = {}
        self._failures = 0

    def set_up(self, local_traces: bool | None) -> None:
        """Sets up what the variables ask for, once, and local traces, also later."""
        provider = trace.get_tracer_provider()
        hosted = not isinstance(provider, trace.ProxyTracerProvider) and provider is not self._tracer_provider
        first = not self._from_variables
        processors: list[CountedSpanProcessor] = []
        if local_traces is None:
            local_traces = bool(settings.current().traces_directory) and not hosted
        if local_traces and self.trace_file is None:
            processors += self._local_traces()
        if first:
            self._from_variables = True
            processors += [] if hosted else self._exported_traces()
            self._set_up_metrics()
            atexit.register(self.shutdown, EXIT_TIMEOUT_SECONDS)
        if processors:
            if hosted or len(self._processors) > 1:
                # Spans of drivers could not be held back everywhere.
                DRIVERS.give_up()
            self._add_processors(provider if hosted else None, processors)
        if not self._follows_forks:
            self._follows_forks = True
            # Behind the SDK's own, which give the child's providers what is the child's.
            call_in_forked_child(self._in_forked_child)
            self._shut_down_with_multiprocessing()
        if first:
            self._warn_of_service_name(provider if hosted else None)

    def flush(self, timeout: float) -> bool:
        """Flushes what is here, and the host's global providers."""
        failures = self._failures
        self._recorder().catch_up()
        traces: list[tuple[OwnThread, Function]] = [
            (thread, processor.force_flush) for processor, thread in self._processors.items()
        ]
        measured: list[tuple[OwnThread, Function]] = [
            (thread, provider.force_flush) for provider, thread in self._meter_providers.items()
        ]
        traces += self._of_host(trace.get_tracer_provider(), self._tracer_provider)
        measured += self._of_host(metrics.get_meter_provider(), *self._meter_providers, *self._inherited)
        flushed = _in_turn(traces, measured, timeout)
        self._flush_inherited()
        return flushed and self._failures == failures

    def shutdown(self, timeout: float) -> bool:
        """Ends what is here; what could not be exported in time is counted, and said."""
        self._recorder().catch_up()
        failures, processors = self._failures, self._processors
        providers, self._processors, self._meter_providers = self._meter_providers, {}, {}

        def count_unfinished() -> None:
            unfinished = sum(processor.close() for processor in processors)
            if unfinished:
                _logger.warning("%d spans could not be exported in time; they are lost", unfinished)

        ended = _in_turn(
            [(thread, processor.shutdown) for processor, thread in processors.items()],
            [(thread, provider.shutdown) for provider, thread in providers.items()],
            timeout,
            count_unfinished,
        )
        self._flush_inherited()
        return ended and self._failures == failures

    def _flush_inherited(self) -> None:
        """Metrics of others in a forked child; where the SDK's locks were held at the fork, that hangs for ever."""
        for provider, thread in self._inherited.items():
            if thread is not None and not call_all([(thread, provider.force_flush)], INHERITED_SECONDS):
                self._inherited[provider] = None

    def _local_traces(self) -> Iterator[CountedSpanProcessor]:
        try:
            from fhirpath_otel.local_traces import TraceFileExporter
        except ImportError:
            _logger.warning(
                "traces are not written to local files: that needs another package;"
                " run: pip install 'fhirpath-otel[local]'"
            )
            return
        from fhirpath_otel.hand_over import CountedSpanExporter

        values = settings.current()
        self.trace_file = TraceFileExporter(traces_directory(values), values.traces_file_bytes, self._lost)
        # It counts its losses itself.
        yield self._processor(CountedSpanExporter(self.trace_file, None, self.export_cost.add_spans))

    def _exported_traces(self) -> Iterator[CountedSpanProcessor]:
        for make in exporter_factories(TRACES, os.environ):
            exporter = make()
            if exporter is not None:
                from fhirpath_otel.hand_over import CountedSpanExporter

                # One that decides about traces counts its losses itself.
                lost = self._note_failure if getattr(exporter, "counts_losses", False) else self._lost
                spent = self.export_cost.add_spans
                yield self._processor(CountedSpanExporter(exporter, lost, spent, make))

    def _processor(self, exporter: CountedSpanExporter) -> CountedSpanProcessor:
        from fhirpath_otel.hand_over import CountedSpanProcessor

        processor = CountedSpanProcessor(exporter, self._lost)
        self._processors[processor] = OwnThread()
        return processor

    def _add_processors(self, host: Any, processors: list[CountedSpanProcessor]) -> None:
        from opentelemetry.sdk.trace import TracerProvider

        provider = host or self._tracer_provider
        if provider is None:
            # Its own exit handler would wait for a dead collector without a bound; ours does not.
            provider = TracerProvider(resource=self._get_resource(), shutdown_on_exit=False)
            self._tracer_provider = provider
            trace.set_tracer_provider(provider)
        if not hasattr(provider, "add_span_processor"):
            _logger.warning(
                "traces are not written to local files: the host's %s takes no span processors",
                type(provider).__name__,
            )
            return
        for processor in processors:
            provider.add_span_processor(processor)

    def _set_up_metrics(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

        current = metrics.get_meter_provider()
        # The API's own class stands there until a provider is set; its name is private, its module is not.
        hosted = not type(current).__module__.startswith("opentelemetry.metrics")
        if hosted or isinstance(current, metrics.NoOpMeterProvider):
            return
        readers: list[MetricReader] = []
        exporters: list[CountedMetricExporter] = []
        for make in exporter_factories(METRICS, os.environ):
            made = make()
            if isinstance(made, MetricReader):
                readers.append(made)
            elif made is not None:
                from fhirpath_otel.hand_over import CountedMetricExporter

                exporters.append(CountedMetricExporter(made, self._lost, self.export_cost.add_metrics, make))
        if exporters and not readers:
            # A reader that is asked, such as Prometheus', cannot be had twice: then a forked child stays with it.
            self._metric_exporters = exporters
            # Made now: a forked child would make it by imports, a lock of which another thread may have held.
            self._recorder()
        readers += [PeriodicExportingMetricReader(exporter) for exporter in exporters]  # type: ignore[arg-type]
        if readers:
            provider = MeterProvider(readers, resource=self._metrics_resource(), shutdown_on_exit=False)
            self._meter_providers[provider] = OwnThread()
            metrics.set_meter_provider(provider)

    def _warn_of_service_name(self, host: Any) -> None:
        """Of what is sent from here, or else of the host's, whose class may be its own."""
        with suppress(Exception):
            if self._resource is not None:
                warn_of_service_name(self._resource.attributes)
            elif host is not None:
                warn_of_service_name(host.resource.attributes)

    def _get_resource(self) -> Resource:
        """The resource of the `OTEL_*` variables, with our name where they give none."""
        from opentelemetry.sdk.resources import Resource

        if self._resource is None:
            resource = Resource.create()
            if str(resource.attributes.get(semconv.SERVICE_NAME, "unknown_service")).startswith(
                "unknown_service"
            ):
                resource = resource.merge(Resource({semconv.SERVICE_NAME: SERVICE_NAME}))
            self._resource = resource
        return self._resource

    def _metrics_resource(self) -> Resource:
        """With an instance, which older SDKs do not make: replicas would overwrite each other's series.

        Spans go without there: in a forked child those SDKs would leave them that of the parent.
        """
        resource = self._get_resource()
        return resource if _INSTANCE in resource.attributes else _as_another_instance(resource)

    def _of_host(self, provider: Any, *own: Any) -> list[tuple[OwnThread, Function]]:
        if provider in own or not hasattr(provider, "force_flush"):
            return []
        if provider not in self._hosts:
            self._hosts[provider] = OwnThread()
        return [(self._hosts[provider], provider.force_flush)]

    def _note_failure(self, _: str, __: str, count: int = 1) -> None:
        """Of an exporter that counts its losses itself."""
        self._failures += count

    def _lost(self, what: str, reason: str, count: int = 1) -> None:
        if reason != semconv.FILE_ROTATED:
            self._failures += count
        self._recorder().lost(what, reason, count)

    def _in_forked_child(self) -> None:
        try:
            self._shut_down_with_multiprocessing()
            if self._metric_exporters:
                self._renew_metrics()
        except Exception as error:  # noqa: BLE001 -- the child is the host's
            _logger.warning(
                "metrics could not be set up in a forked process (%s); evaluations are not affected",
                type(error).__name__,
            )

    def _shut_down_with_multiprocessing(self) -> None:
        """Its processes end without the interpreter's exit handlers, but with its own."""
        process: Any = sys.modules.get("multiprocessing.process")
        util: Any = sys.modules.get("multiprocessing.util")
        if hasattr(util, "register_after_fork") and hasattr(util, "Finalize"):
            util.register_after_fork(
                self, lambda own: util.Finalize(None, own.shutdown, (EXIT_TIMEOUT_SECONDS,), exitpriority=0)
            )
            if process is not None and process.parent_process() is not None:
                # One that is a child itself, and has begun already.
                util.Finalize(None, self.shutdown, (EXIT_TIMEOUT_SECONDS,), exitpriority=0)

    def _renew_metrics(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        recorder = self._recorder()
        self._metric_exporters = [exporter.for_child() for exporter in self._metric_exporters]
        readers = [PeriodicExportingMetricReader(exporter) for exporter in self._metric_exporters]  # type: ignore[arg-type]
        self.meter_provider = MeterProvider(readers, resource=self._child_resource(), shutdown_on_exit=False)
        self._inherited |= self._meter_providers
        self._meter_providers = {self.meter_provider: OwnThread()}
        recorder.count_anew(self.meter_provider)

    def _child_resource(self) -> Resource:
        """Two processes must not write the same series: the child is another instance of the service."""
        resource = self._get_resource()
        if self._tracer_provider is not None and self._tracer_provider.resource != resource:
            own: Resource = self._tracer_provider.resource  # the SDK has seen to it
            return own
        if _INSTANCE in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            return resource
        return _as_another_instance(resource)


def _as_another_instance(resource: Resource) -> Resource:
    from opentelemetry.sdk.resources import Resource

    return resource.merge(Resource({_INSTANCE: str(uuid4())}))


def _in_turn(
    traces: list[tuple[OwnThread, Function]],
    measured: list[tuple[OwnThread, Function]],
    timeout: float,
    between: Callable[[], None] = lambda: None,
) -> bool:
    deadline = time.monotonic() + timeout
    traced = call_all(traces, timeout * TRACES_SHARE if measured else timeout)
    between()
    return call_all(measured, deadline - time.monotonic()) and traced
