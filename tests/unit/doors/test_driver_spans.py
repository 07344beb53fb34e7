"""Spans of a database's driver: below our SQL span where that can be held back, beside it elsewhere, never dangling."""

from __future__ import annotations

import asyncio
import contextvars
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from fhirpath_otel.analysis.analyser import Analyser
from fhirpath_otel.databases.duckdb import DuckDBDatabase
from fhirpath_otel.errors import DatabaseError
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry import driver_context, recorder
from fhirpath_otel.telemetry.evaluation import Decision, Evaluation, Outcome
from fhirpath_otel.telemetry.governor import Governor
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.tracestate import RANGE, threshold_in, threshold_of

KEEP = Decision(True, "slow")
DROP = Decision(False, "not_selected")
PATIENTS = "\n".join(
    f'{{"resourceType":"Patient","id":"{n}","name":[{{"family":"f{n}"}}]}}' for n in range(3)
)


@dataclass
class Host:
    """A host with one door, a database, and a driver instrumentation that makes a span of each call."""

    doors: Any
    database: Any
    recorder: Recorder
    decision: Decision = KEEP

    def named(self, name):
        return [span for span in self.doors.kept.spans if span.name == name]

    def evaluate(self, expression="Patient.name.family", **options):
        with self.database.evaluate(expression, **options) as result:
            rows = list(result)
        return result, rows

    def no_span_dangles(self):
        known = {span.context.span_id for span in self.doors.kept.spans}
        return all(
            span.parent is None or span.parent.is_remote or span.parent.span_id in known
            for span in self.doors.kept.spans
        )


@pytest.fixture
def make_host(make_doors, monkeypatch, tmp_path):
    """Makes a host; `kind` is the door, or None."""
    (tmp_path / "patients.ndjson").write_text(PATIENTS)

    def make(kind, join=True, **options):
        doors = make_doors(kind or "exporter", **options)
        monkeypatch.setattr(recorder, "DRIVERS", doors.drivers)
        monkeypatch.setattr("fhirpath_otel.evaluator.pipeline.DRIVERS", doors.drivers)
        if kind is None:
            doors.provider = TracerProvider(shutdown_on_exit=False)
            doors.provider.add_span_processor(SimpleSpanProcessor(doors.kept))
        made = Host(doors, None, None)
        made.recorder = Recorder(
            lambda _: made.decision,
            tracer_provider=doors.provider,
            meter_provider=MeterProvider(shutdown_on_exit=False),
        )
        made.database = DuckDBDatabase(":memory:", made.recorder)
        made.database.load(tmp_path / "patients.ndjson")
        instrument(monkeypatch, made.database, doors.provider.get_tracer("driver"))
        if kind is not None and join:
            doors.drivers.join(doors.door)
        return made

    return make


class Cursor:
    """What a driver's instrumentation puts around a cursor."""

    def __init__(self, cursor, tracer):
        self._cursor = cursor
        self._tracer = tracer

    def execute(self, *args):
        start = self._tracer.start_as_current_span
        with start("driver execute", attributes={"db.system": "duckdb"}), start("driver wire"):
            return self._cursor.execute(*args)

    def fetchmany(self, size):
        with self._tracer.start_as_current_span("driver fetch"):
            return self._cursor.fetchmany(size)

    def __getattr__(self, name):
        return getattr(self._cursor, name)


def instrument(monkeypatch, database, tracer):
    borrow, give_back = database.borrow_cursor, database.return_cursor
    monkeypatch.setattr(database, "borrow_cursor", lambda: Cursor(borrow(), tracer))
    monkeypatch.setattr(database, "return_cursor", lambda cursor: give_back(cursor._cursor))


KINDS = pytest.mark.parametrize("kind", ["processor", "exporter"])


@KINDS
def test_kept_the_drivers_spans_are_below_our_sql_span(make_host, kind):
    host = make_host(kind)
    host.evaluate()
    host.doors.door.shutdown()
    [root], [sql] = host.named("fhirpath evaluate"), host.named("SELECT")
    [execute], [wire], fetches = (
        host.named("driver execute"),
        host.named("driver wire"),
        host.named("driver fetch"),
    )
    assert {span.parent.span_id for span in (execute, *fetches)} == {sql.context.span_id}
    assert wire.parent.span_id == execute.context.span_id
    assert len({span.context.trace_id for span in host.doors.kept.spans}) == 1
    assert sql.parent.span_id == root.context.span_id
    assert root.parent is None
    assert not host.doors.counts.seen


@KINDS
def test_dropped_they_go_with_the_evaluation_and_are_counted(make_host, kind):
    host = make_host(kind)
    host.decision = DROP
    host.evaluate()
    host.doors.door.shutdown()
    assert host.doors.names() == []
    assert host.doors.counts.seen == {("driver_span", "evaluation_dropped"): 4}


@KINDS
def test_the_spans_of_an_evaluation_that_fails_share_its_fate(make_host, kind, monkeypatch):
    host = make_host(kind)

    def fail(self, *_):
        import duckdb

        with self._tracer.start_as_current_span("driver execute"):
            raise duckdb.IOException("CANARY")

    monkeypatch.setattr(Cursor, "execute", fail)
    for decision in (DROP, KEEP):
        host.decision = decision
        with pytest.raises(DatabaseError):
            host.evaluate()
    host.doors.door.shutdown()
    assert host.doors.counts.seen == {("driver_span", "evaluation_dropped"): 1}
    [sql], [execute] = host.named("SELECT") or host.named("fhirpath sql"), host.named("driver execute")
    assert execute.parent.span_id == sql.context.span_id


@KINDS
def test_below_a_caller_they_stay_in_its_trace(make_host, kind):
    host = make_host(kind)
    flags = TraceFlags(TraceFlags.SAMPLED)
    caller = NonRecordingSpan(SpanContext(0xABC, 0x77, True, flags, TraceState([("vendor", "1")])))
    with trace.use_span(caller), host.doors.tracer("host").start_as_current_span("request"):
        host.evaluate()
    [sql], [execute], [request] = host.named("SELECT"), host.named("driver execute"), host.named("request")
    assert {span.context.trace_id for span in host.doors.kept.spans} == {0xABC}
    assert execute.parent.span_id == sql.context.span_id
    assert execute.context.trace_state["vendor"] == "1"
    assert dict(request.context.trace_state) == {"vendor": "1"}
    assert host.no_span_dangles()


@KINDS
def test_below_a_caller_that_is_not_sampled_the_context_stays_the_callers(make_host, kind):
    host = make_host(kind)
    caller = NonRecordingSpan(SpanContext(0xABC, 0x77, True, TraceFlags(0)))
    with trace.use_span(caller):
        result, _ = host.evaluate()
    assert result.sampling.reason == "unsampled_parent"
    assert host.doors.names() == []
    assert not host.doors.counts.seen


@pytest.mark.parametrize(("kind", "join"), [(None, False), ("exporter", False)])
def test_without_a_door_they_are_siblings(make_host, kind, join):
    host = make_host(kind, join)
    with host.doors.tracer("host").start_as_current_span("request") as request:
        host.evaluate()
    host.decision = DROP
    host.evaluate()
    [root], executes = host.named("fhirpath evaluate"), host.named("driver execute")
    assert root.parent.span_id == request.get_span_context().span_id
    assert [span.parent and span.parent.span_id for span in executes] == [root.parent.span_id, None]
    assert host.no_span_dangles()


def test_a_processor_joins_when_it_sees_that_it_is_in_use(make_host):
    host = make_host("processor", join=False)
    host.evaluate()
    host.evaluate()
    first, second = host.named("driver execute")
    assert first.parent is None
    assert second.parent.span_id == host.named("SELECT")[1].context.span_id


def test_a_trace_of_its_own_has_the_randomness_that_the_baseline_decides_by(make_host):
    host = make_host("processor")
    seen = []
    host.recorder._judge.decide = lambda evaluation: seen.append(evaluation) or KEEP
    host.evaluate()
    [evaluation] = seen
    assert evaluation.randomness == evaluation.premade.trace_id % (1 << 56)
    assert host.named("SELECT")[0].context.trace_id == evaluation.premade.trace_id


def test_what_the_baseline_draws_before_it_begins_ends_in_an_id_that_fits(make_host):
    host = make_host("processor")
    settings = Settings(baseline_rate=0.25, max_traces_per_second=1e9)
    reasons, analyser = Reasons(settings, random.Random(5).random), Analyser()  # noqa: S311
    host.recorder = host.database.recorder = Recorder(
        TailSampler(reasons.policies, 1e9),
        analyse=analyser,
        may_find=analyser.may_find,
        ordinary=reasons,
        governor=Governor(1e6, detail="stages"),
        tracer_provider=host.doors.provider,
        meter_provider=MeterProvider(shutdown_on_exit=False),
    )
    outcomes = [host.evaluate()[0].sampling for _ in range(200)]
    kept = sum(outcome.reason == "baseline" and outcome.kept for outcome in outcomes)
    roots = [
        span
        for span in host.named("fhirpath evaluate")
        if span.attributes["fhirpath.sampling.reason"] == "baseline"
    ]
    assert len(roots) == kept > 20
    for root in roots:
        threshold = threshold_in(root.context.trace_state)
        assert threshold == threshold_of(0.25)
        assert root.context.trace_id % RANGE >= threshold
    everything = sum(outcome.kept for outcome in outcomes)
    assert len(host.named("driver execute")) == len(host.named("SELECT")) == everything
    assert host.doors.counts.seen["driver_span", "evaluation_dropped"] == 4 * (200 - everything)
    assert host.no_span_dangles()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_without_a_span_of_its_sql_an_evaluation_holds_nothing_below_it(make_host, when):
    host = make_host("processor")
    if when == "before":
        host.recorder.set_detail("basic")
    result = host.database.evaluate("Patient.name.family")
    host.recorder.set_detail("basic")
    list(result)
    assert host.named("fhirpath evaluate")
    assert not host.named("SELECT")
    assert host.no_span_dangles()
    assert len(host.named("driver execute")) == (when == "before")


def test_under_a_hosts_ratio_the_baseline_draws_otherwise_and_a_refusal_takes_the_drivers_spans(make_host):
    host = make_host("processor", sampler=ParentBasedTraceIdRatio(0.0))
    seen = []
    host.recorder._judge.decide = lambda evaluation: seen.append(evaluation.randomness) or KEEP
    result, _ = host.evaluate()
    assert seen == [None]
    assert result.sampling.reason == "host_sampler"
    assert host.doors.names() == []
    assert host.doors.counts.seen == {("driver_span", "evaluation_dropped"): 4}


@KINDS
def test_in_memory_only_the_database_works_in_that_context(make_host, kind):
    pytest.importorskip("fhirpathpy")
    host = make_host(kind)
    seen = []
    rows = host.database.evaluate("Patient.name.family", mode="memory")
    evaluate_one = rows._rows._evaluate
    rows._rows._evaluate = lambda raw: (
        seen.append(trace.get_current_span().get_span_context()) or evaluate_one(raw)
    )
    with rows:
        assert len(list(rows)) == 3
    assert not any(context.is_valid for context in seen)
    host.doors.door.shutdown()
    assert host.named("driver fetch")[0].parent.span_id == host.named("SELECT")[0].context.span_id


def test_tasks_of_asyncio_keep_their_parents_apart(make_host):
    host = make_host("processor")

    async def request(number):
        with host.doors.tracer("host").start_as_current_span(f"request {number}"):
            await asyncio.sleep(0)
            result = host.database.evaluate("Patient.name.family")
            await asyncio.sleep(0)
            for _ in result:
                await asyncio.sleep(0)

    async def serve():
        await asyncio.gather(*(request(number) for number in range(4)))

    asyncio.run(serve())
    parents_are_right(host)


def test_thread_pools_with_copied_contexts_keep_their_parents_apart(make_host):
    host = make_host("processor")
    futures = []
    with ThreadPoolExecutor(4) as threads:
        for number in range(8):
            with host.doors.tracer("host").start_as_current_span(f"request {number}"):
                context = contextvars.copy_context()
                futures.append(threads.submit(context.run, host.evaluate))
        [future.result() for future in futures]
    parents_are_right(host)


def parents_are_right(host):
    by_id = {span.context.span_id: span for span in host.doors.kept.spans}
    executes = host.named("driver execute")
    for execute in executes:
        sql = by_id[execute.parent.span_id]
        root = by_id[sql.parent.span_id]
        request = by_id[root.parent.span_id]
        assert (sql.name, root.name, request.name[:7]) == ("SELECT", "fhirpath evaluate", "request")
        assert request.context.trace_id == execute.context.trace_id
    assert len({execute.context.trace_id for execute in executes}) == len(executes)
    assert host.no_span_dangles()


def test_a_result_that_is_read_in_another_context_leaves_that_as_it_was(make_host):
    host = make_host("processor")
    result = host.database.evaluate("Patient.name.family")

    def read():
        with host.doors.tracer("host").start_as_current_span("reader") as reader:
            rows = list(result)
            assert trace.get_current_span() is reader
        return rows

    assert len(contextvars.copy_context().run(read)) == 3
    assert not trace.get_current_span().get_span_context().is_valid
    [fetch, *_] = host.named("driver fetch")
    assert fetch.parent.span_id == host.named("SELECT")[0].context.span_id
    assert host.named("reader")[0].parent is None


def test_a_result_that_is_dropped_in_the_middle_ends_its_drivers_spans_too(make_host):
    host = make_host("processor")
    result = host.database.evaluate("Patient.name.family")
    next(iter(result))
    assert host.doors.names() == []
    result.close()
    assert len(host.named("driver execute")) == 1
    assert host.no_span_dangles()


@KINDS
def test_whole_service_sampling_leaves_the_drivers_spans_to_the_evaluation(make_host, kind):
    host = make_host(kind, whose="all", decide=lambda _: DROP)
    for decision in (KEEP, DROP):
        host.decision = decision
        with host.doors.tracer("host").start_as_current_span("request"):
            host.evaluate()
    host.doors.door.shutdown()
    assert sorted(set(host.doors.names())) == [
        *(
            "SELECT",
            "driver execute",
            "driver fetch",
            "driver wire",
            "fhirpath collection",
            "fhirpath evaluate",
        ),
        *("fhirpath parse", "fhirpath type_check", "request"),
    ]
    assert len(host.named("request")) == 1
    assert host.no_span_dangles()
    assert host.doors.counts.seen == {("driver_span", "evaluation_dropped"): 4}
    assert host.doors.door._router.groups.held() == (0, 0, 0)


def test_what_waits_for_the_export_thread_is_bounded(make_host, monkeypatch):
    monkeypatch.setattr("fhirpath_otel.doors.tail_exporter.MOST_SPANS", 3)
    host = make_host("exporter")
    host.doors.door.release(["a", "b"])
    host.doors.door.release(["c", "d", "e"])
    assert list(host.doors.door._ready) == ["a", "b", "c"]
    assert host.doors.counts.seen == {("driver_span", "export_failed"): 2}


def test_a_door_that_fails_is_counted_and_fails_no_evaluation(make_host, caplog):
    host = make_host("processor")
    host.decision = DROP
    host.doors.door.lose = None
    assert len(host.evaluate()[1]) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_no_door_costs_one_look_at_an_attribute(make_host, monkeypatch):
    host = make_host(None)
    monkeypatch.setattr(host.recorder, "driver_parent", lambda _: pytest.fail("nobody holds anything back"))
    host.evaluate()


# --- the registry


def driver_evaluation():
    made = Evaluation(otel_context.Context())
    made.sql_written = True
    return made


class Ids:
    """Ids that count."""

    def __init__(self):
        self.last = 0

    def premade(self, _=None):
        self.last += 1
        return self.last, self.last, None


class Door:
    """Remembers what it was told."""

    def __init__(self):
        self.out, self.lost = [], []

    def release(self, spans):
        self.out += spans

    def lose(self, reason, count):
        self.lost += [reason] * count


@dataclass
class Span:
    context: SpanContext
    parent: SpanContext | None


def below(premade, state=None):
    return Span(
        SpanContext(premade.trace_id, 99, False, TraceFlags(1), state or premade.trace_state), premade
    )


def settled(spans, noted, kept):
    noted.outcome = Outcome(kept, "kept" if kept else "dropped", "slow")
    spans.settle(noted)


@pytest.fixture
def registry():
    return driver_context.DriverSpans(most_evaluations=3, most_spans=4), Door(), Ids()


def test_too_many_evaluations_give_up_the_oldest(registry):
    spans, door, ids = registry
    spans.join(door)
    opened = [spans.open(driver_evaluation(), ids) for _ in range(3)]
    assert not spans.may_go_out(door, below(opened[0]))
    spans.open(driver_evaluation(), ids)
    assert door.lost == ["too_many_traces"]
    assert not spans.may_go_out(door, below(opened[0]))
    assert door.lost == ["too_many_traces", "too_old"]


def test_too_many_spans_give_up_all_of_the_evaluation_that_has_them(registry):
    spans, door, ids = registry
    spans.join(door)
    noted = driver_evaluation()
    premade = spans.open(noted, ids)
    held = [spans.may_go_out(door, below(premade)) for _ in range(7)]
    assert not any(held)
    assert door.lost == ["too_many_spans"] * 7
    settled(spans, noted, kept=True)
    assert door.out == []


def test_late_spans_follow(registry):
    spans, door, ids = registry
    spans.join(door)
    kept, dropped = driver_evaluation(), driver_evaluation()
    first, second = spans.open(kept, ids), spans.open(dropped, ids)
    settled(spans, kept, kept=True)
    settled(spans, dropped, kept=False)
    assert spans.may_go_out(door, below(first))
    assert not spans.may_go_out(door, below(second))
    assert door.lost == ["evaluation_dropped"]


def test_a_sampler_that_drops_our_mark_leaves_direct_children(registry):
    spans, door, ids = registry
    spans.join(door)
    premade = spans.open(driver_evaluation(), ids)
    assert not spans.may_go_out(door, below(premade, TraceState([("a", "b")])))


@pytest.mark.parametrize("mark", ["00000000-0000000000000001", "nonsense", "-"])
def test_marks_of_other_processes_mean_nothing_here(registry, mark):
    spans, door, ids = registry
    spans.join(door)
    spans.open(driver_evaluation(), ids)
    context = SpanContext(5, 6, False, TraceFlags(1), TraceState([("fhirpath", mark)]))
    assert spans.may_go_out(door, Span(context, None)) is None


def test_a_malformed_mark_of_ours_means_nothing(registry):
    spans, door, ids = registry
    spans.join(door)
    spans.open(driver_evaluation(), ids)
    context = SpanContext(5, 6, False, TraceFlags(1), TraceState([("fhirpath", f"{spans._token}-zz")]))
    assert spans.may_go_out(door, Span(context, None)) is None


def test_a_door_that_leaves_loses_what_it_held_and_ends_the_holding(registry):
    spans, door, ids = registry
    spans.join(door)
    premade = spans.open(driver_evaluation(), ids)
    spans.may_go_out(door, below(premade))
    spans.leave(door)
    assert door.lost == ["undecided"]
    assert not spans.active
    assert spans.open(driver_evaluation(), ids) is None


@KINDS
def test_after_shutdown_nothing_is_held_back(make_host, kind):
    host = make_host(kind)
    result = host.database.evaluate("Patient.name.family")
    host.doors.door.shutdown()
    assert host.doors.counts.seen["driver_span", "undecided"] == 2
    assert len(list(result)) == 3
    assert host.doors.drivers._held == 0


def test_doors_that_nobody_holds_any_more_are_gone(registry):
    spans, _, ids = registry
    spans.join(Door())
    assert spans.open(driver_evaluation(), ids) is None
    assert not spans.active


def test_where_spans_also_leave_elsewhere_nothing_is_told_to_drivers(registry):
    spans, door, _ = registry
    spans.join(door)
    spans.give_up()
    assert not spans.active
    spans.join(door)
    assert not spans.active


def test_without_a_say_in_ids_the_callers_context_stays(registry):
    spans, door, _ = registry
    spans.join(door)
    assert spans.open(driver_evaluation(), None) is None


def test_a_full_tracestate_of_the_caller_stays_as_it_is(registry):
    spans, door, ids = registry
    spans.join(door)
    state = TraceState([(f"k{number}", "1") for number in range(32)])
    caller = NonRecordingSpan(SpanContext(5, 6, True, TraceFlags(1), state))
    noted = driver_evaluation()
    noted.context = trace.set_span_in_context(caller)
    premade = spans.open(noted, ids)
    assert premade.trace_state == state
    assert not spans.may_go_out(door, below(premade))


def test_an_evaluation_that_was_not_kept_with_its_sql_takes_the_spans_with_it(registry):
    spans, door, ids = registry
    spans.join(door)
    noted = driver_evaluation()
    noted.sql_written = False
    spans.may_go_out(door, below(spans.open(noted, ids)))
    settled(spans, noted, kept=True)
    assert (door.out, door.lost) == ([], ["evaluation_dropped"])


def test_threads_release_or_count_each_span_once():
    spans, door, ids = driver_context.DriverSpans(), Door(), Ids()
    spans.join(door)
    noted = [driver_evaluation() for _ in range(400)]
    premade = [spans.open(one, ids) for one in noted]
    passed = []

    def drive(thread):
        passed.extend(one for one in premade if spans.may_go_out(door, below(one)))

    def settle(_):
        for number, one in enumerate(noted):
            settled(spans, one, kept=number % 2 == 0)

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda work: work(0), [drive, settle, drive, settle, drive]))
    assert len(passed) + len(door.out) == 3 * 200
    assert len(door.lost) == 3 * 200
    assert spans._held == 0
