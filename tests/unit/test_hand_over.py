"""What exporters do not take is counted, and said once; what they cost is summed."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from fhirpath_otel import hand_over, semconv
from fhirpath_otel.hand_over import CountedMetricExporter, CountedSpanExporter, CountedSpanProcessor
from fhirpath_otel.telemetry.export_cost import ExportCost

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

ROOM = 8


class Spans(SpanExporter):
    """An exporter that keeps what it gets and answers as it is told; `hold` makes it hang until `release`."""

    def __init__(self, answer=SpanExportResult.SUCCESS):
        self.answer = answer
        self.exported = []
        self.held, self.release = threading.Event(), threading.Event()
        self.release.set()

    def hold(self):
        self.release.clear()

    def export(self, spans):
        self.held.set()
        self.release.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        self.exported += [span.name for span in spans]
        return self.answer


class Line:
    """A provider over a counted processor over an exporter."""

    def __init__(self, exporter, remake=None, **options):
        self.lost, self.cost = Counter(), ExportCost()
        self.exporter = exporter
        self.counted = CountedSpanExporter(exporter, self.count, self.cost.add_spans, remake)
        self.processor = CountedSpanProcessor(self.counted, self.count)
        provider = TracerProvider(shutdown_on_exit=False, **options)
        provider.add_span_processor(self.processor)
        self.tracer = provider.get_tracer("test")

    def count(self, what, reason, number):
        self.lost[what, reason] += number

    def emit(self, number, prefix="span"):
        for index in range(number):
            self.tracer.start_span(f"{prefix}{index}").end()


@pytest.fixture(autouse=True)
def small_queue(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(ROOM))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")


def ours(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "fhirpath_otel"]


def test_spans_that_arrive_are_no_loss_and_their_cost_is_summed(monkeypatch, caplog):
    monkeypatch.setattr(hand_over, "thread_time_ns", iter(range(0, 10**9, 500)).__next__)
    line = Line(Spans())
    line.emit(3)
    assert line.processor.force_flush()
    line.emit(2)
    line.processor.shutdown()
    assert line.processor.close() == 0
    assert len(line.exporter.exported) == 5
    assert line.lost == {}
    assert (line.cost.spans, line.cost.spent_ns, line.cost.metrics_spent_ns) == (5, 1_000, 0)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (SpanExportResult.FAILURE, "the exporter says so"),
        (ValueError("CANARY"), "ValueError"),
        (MemoryError("CANARY"), "MemoryError"),
    ],
)
def test_a_failing_exporter_is_counted_and_said_once_without_its_message(answer, said, caplog):
    line = Line(Spans(answer))
    for _ in range(3):
        line.emit(2)
        line.processor.force_flush()
    line.processor.shutdown()
    assert line.lost == {("span", "export_failed"): 6}
    assert line.processor.close() == 0, "what was counted is not counted again"
    [message] = [record.getMessage() for record in caplog.records]
    assert message == (
        f"spans could not be exported ({said}); they are lost and counted in fhirpath.telemetry.dropped,"
        " evaluations are not affected, further failures are only counted"
    )
    assert "CANARY" not in caplog.text


def test_an_exporter_that_counts_itself_is_not_counted_twice(caplog):
    exporter = Spans(SpanExportResult.FAILURE)
    line = Line(exporter)
    line.counted._lost = None
    line.emit(2)
    line.processor.shutdown()
    assert line.lost == {}
    assert caplog.records == []


def test_a_full_queue_is_counted_to_the_span_and_said_once_while_nobody_waits(caplog):
    exporter = Spans()
    exporter.hold()
    line = Line(exporter)
    line.emit(4)  # A batch: its export begins by itself, and hangs.
    exporter.held.wait()
    line.emit(ROOM + 5, "more")  # Returns although the exporter hangs.
    assert line.lost == {("span", "queue_full"): 5}
    exporter.release.set()
    line.processor.shutdown()
    assert line.processor.close() == 0
    assert exporter.exported == [*(f"span{n}" for n in range(4)), *(f"more{n}" for n in range(ROOM))]
    assert line.lost == {("span", "queue_full"): 5}
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith(
        "spans come faster than they are exported, or their exporter hangs; those beyond 8"
    )


def test_many_threads_lose_no_span_that_is_not_counted():
    exporter = Spans()
    line = Line(exporter)
    threads = [threading.Thread(target=line.emit, args=(500,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line.processor.shutdown()
    assert len(exporter.exported) + sum(line.lost.values()) == 8 * 500
    assert set(line.lost) <= {("span", "queue_full")}


def test_what_an_exporter_holds_up_at_the_end_is_counted_once():
    exporter = Spans()
    exporter.hold()
    line = Line(exporter)
    line.emit(4)
    exporter.held.wait()
    line.emit(2)
    assert line.processor.close() == 6
    assert line.processor.close() == 0
    line.emit(1)  # A span that ends afterwards.
    assert line.lost == {("span", "shut_down"): 7}
    exporter.release.set()
    line.processor.shutdown()
    assert line.lost == {("span", "shut_down"): 7}


class RecordsOnly(Sampler):
    def should_sample(self, *_, **__):
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self):
        return "records only"


def test_spans_that_are_recorded_but_not_sampled_are_nobodys_loss():
    line = Line(Spans(), sampler=RecordsOnly())
    line.emit(3 * ROOM)
    line.processor.shutdown()
    assert line.processor.close() == 0
    assert line.exporter.exported == []
    assert line.lost == {}


def test_a_queue_size_that_cannot_be_read_is_the_sdks_own(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    with caplog.at_level(logging.CRITICAL):
        line = Line(Spans())
    assert line.processor._room == hand_over.QUEUE_SIZE
    line.processor.shutdown()


@forks
@needs_fork
def test_a_forked_child_exports_its_own_spans_with_an_exporter_of_its_own(tmp_path):
    class Other(Spans):
        def export(self, spans):
            with (tmp_path / "child").open("a") as file:
                file.writelines(f"{span.name}\n" for span in spans)
            return super().export(spans)

    parents = Spans()
    parents.hold()
    line = Line(parents, Other)
    line.emit(4, "parent")
    parents.held.wait()
    line.emit(2, "parent")  # These wait in the queue at the fork.
    child = os.fork()
    if child == 0:
        line.emit(2, "child")
        line.processor.shutdown()
        os._exit(0 if line.processor.close() == 0 and not parents.exported else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "child").read_text().split() == ["child0", "child1"]
    parents.release.set()
    line.processor.shutdown()
    assert len(parents.exported) == 6
    assert line.lost == {}


@forks
@needs_fork
def test_a_forked_child_that_gets_no_exporter_counts_what_is_lost():
    line = Line(Spans(), lambda: None)
    child = os.fork()
    if child == 0:
        line.emit(2)
        line.processor.shutdown()
        os._exit(line.lost["span", "export_failed"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    line.processor.shutdown()


class Metrics(MetricExporter):
    def __init__(self, answer=MetricExportResult.SUCCESS):
        super().__init__()
        self.answer = answer
        self.exported = []

    def export(self, metrics_data, timeout_millis=10_000, **_):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.exported += [
            (scope.scope.name, metric.name)
            for resource in metrics_data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return self.answer

    def shutdown(self, timeout_millis=30_000, **_):
        pass

    def force_flush(self, timeout_millis=10_000):
        return True


@pytest.mark.parametrize("answer", [MetricExportResult.FAILURE, OSError("CANARY")])
def test_metrics_that_do_not_arrive_are_counted_and_said_once(answer, caplog):
    lost, cost = Counter(), ExportCost()
    counted = CountedMetricExporter(
        Metrics(answer), lambda what, reason, number: lost.update({(what, reason): number}), cost.add_metrics
    )
    provider = MeterProvider([PeriodicExportingMetricReader(counted)], shutdown_on_exit=False)
    provider.get_meter("one").create_counter("a").add(1)
    provider.get_meter("two").create_counter("b").add(1, {"k": "v"})
    provider.force_flush()
    provider.shutdown()
    assert lost == {("metric", "export_failed"): 4}
    assert (cost.spans, cost.spent_ns) == (0, 0)
    assert cost.metrics_spent_ns > 0
    assert len(ours(caplog)) == 1
    assert "CANARY" not in caplog.text


def test_in_a_forked_child_ours_are_left_out_of_what_the_parent_added_up():
    exporter = Metrics()
    counted = CountedMetricExporter(exporter, None, ExportCost().add_metrics, Metrics)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter(semconv.SCOPE).create_counter("ours").add(1)
    only_ours = reader.get_metrics_data()
    provider.get_meter("host").create_counter("theirs").add(1)
    both = reader.get_metrics_data()
    counted.export(both)
    counted.for_child()
    assert counted.export(only_ours) is MetricExportResult.SUCCESS
    counted.export(both)
    assert exporter.exported == [(semconv.SCOPE, "ours"), ("host", "theirs"), ("host", "theirs")]
