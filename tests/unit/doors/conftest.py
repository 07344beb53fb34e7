"""Doors over an SDK in memory, with a counting in place of metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from fhirpath_otel.doors.routing import Router
from fhirpath_otel.doors.tail_exporter import TailSamplingExporter
from fhirpath_otel.doors.tail_processor import TailSamplingProcessor
from fhirpath_otel.sampling.group_sampler import GroupSampler
from fhirpath_otel.telemetry.driver_context import DriverSpans
from fhirpath_otel.telemetry.evaluation import Decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

KEEP = Decision(True, "slow", 3.0)
DROP = Decision(False, "not_selected")


class Counts:
    """What was counted, as a Counter."""

    def __init__(self):
        self.seen = Counter()

    def decided(self, decision, reason):
        self.seen[decision, reason] += 1

    def found(self, findings):
        for finding in findings:
            self.seen["finding", finding.rule] += 1

    def lost(self, what, reason, count=1):
        self.seen[what, reason] += count

    def lost_all(self, what, counts):
        self.seen.update({(what, reason): count for reason, count in counts.items()})

    def catch_up(self):
        """Nothing is early here."""

    def failed(self, what):
        self.seen[what, "internal_error"] += 1


class Kept(SpanExporter):
    """Keeps the spans it is given, and answers as told."""

    def __init__(self):
        self.spans: list[ReadableSpan] = []
        self.result = SpanExportResult.SUCCESS
        self.closed = 0

    def export(self, spans):
        self.spans += spans
        return self.result

    def shutdown(self):
        self.closed += 1

    def force_flush(self, timeout_millis=30_000):
        return True


@dataclass
class Doors:
    """A provider with one door, and what came out of it."""

    provider: TracerProvider
    door: Any
    kept: Kept
    counts: Counts
    drivers: DriverSpans
    decide: Callable[..., Decision]
    asked: list[Any] = field(default_factory=list)

    def tracer(self, scope="fhirpath_otel"):
        return self.provider.get_tracer(scope)

    def names(self):
        return [span.name for span in self.kept.spans]

    def span(self, name):
        [found] = [span for span in self.kept.spans if span.name == name]
        return found


@pytest.fixture
def make_doors():
    """Makes a provider with a `processor` or an `exporter` as its door."""

    def make(kind, decide=None, analyse=None, keeps_all=None, sampler=None, exporter=None, **options):
        counts, kept, drivers, asked = Counts(), exporter or Kept(), DriverSpans(), []
        made = Doors(None, None, kept, counts, drivers, decide or (lambda _: KEEP), asked)

        def ask(evaluation):
            asked.append(evaluation)
            return made.decide(evaluation)

        judge = GroupSampler(ask, analyse or (lambda *_: ()), counts, keeps_all or (lambda _: False))
        exporter_options = {key: options.pop(key) for key in ("strip_foreign",) if key in options}
        router = Router(judge, counts, starts_seen=kind == "processor", **options)
        made.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        if kind == "processor":
            made.door = TailSamplingProcessor(SimpleSpanProcessor(kept), router, counts, drivers=drivers)
            made.provider.add_span_processor(made.door)
        else:
            made.door = TailSamplingExporter(kept, router, counts, drivers=drivers, **exporter_options)
            made.provider.add_span_processor(SimpleSpanProcessor(made.door))
        return made

    return make


@pytest.fixture(params=["processor", "exporter"])
def doors(request, make_doors):
    return make_doors(request.param)
