"""Outages of the whole stack under load: what was acknowledged arrives, what is lost is told, applications go on."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from fhirpath_otel import population
from tests.stack.clients import eventually
from tests.stack.figures import most_memory
from tests.stack.senders import keeping, undecided
from tests.stack.steady_application import SPANS_THAT_WAIT, evaluating

pytestmark = pytest.mark.stack_load

# The tail sampler looks once a second for traces whose wait is over.
TICK = 1
# A shared machine may keep the collector from its tick.
LATE = 2


@pytest.fixture(scope="module")
def faulty(make_stack, tmp_path_factory):
    """A stack of this module's own: every test leaves it whole."""
    with make_stack(tmp_path_factory.mktemp("faulty")) as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    population.write(folder, 20)
    return folder


def of_otelcol(stack, name):
    """The sum of the collector's own series whose names and labels begin so."""
    return sum(item for series, item in stack.own_metrics("otelcol").items() if series.startswith(name))


def queued(stack):
    return int(of_otelcol(stack, "otelcol_exporter_queue_size{"))


def past_the_tail_sampler(stack):
    """Spans about which nobody had decided that were kept, and are in the queue."""
    return of_otelcol(
        stack,
        'otelcol_processor_outgoing_items_total{otel_signal="traces",processor="filter/undecided"',
    )


def arrived(stack, sender):
    return stack.jaeger.span_ids(sender.service, sender.began, sender.ended)


def all_arrive(stack, sender, acknowledged=None):
    """Waits until Jaeger has what was acknowledged to the sender, and returns all that it has of it."""

    def look():
        there = arrived(stack, sender)
        missing = len((sender.acknowledged.keys() if acknowledged is None else acknowledged) - there)
        assert not missing, f"{missing} of {len(sender.acknowledged)} acknowledged spans are missing"
        return there

    return eventually(look, patience=120, every=1)


@contextmanager
def jaeger_away(stack):
    """Jaeger is killed, and started again at the end."""
    stack.kill("jaeger")
    try:
        yield
    finally:
        stack.start("jaeger")


def goes_on(application):
    """Waits until the application has made more spans than may wait in it; returns its slowest evaluations of both.

    Evaluations that waited for telemetry would never get there: nothing takes what they record.
    """
    before = application.tells()
    during = []

    def looks():
        during.append(application.tells())
        return during[-1]["spans"] > before["spans"] + 3 * SPANS_THAT_WAIT

    eventually(looks)
    slowest = before["slowest"], max(told["slowest"] for told in during)
    return ", ".join(f"{seconds * 1e3:.0f} ms" for seconds in slowest)


def loses_only_what_it_counts(stack, service, began, application):
    """Ends the application, and returns figures of it: each span is in Jaeger, or counted as lost."""
    told = application.ends()
    assert told["wrong"] == 0
    assert "Traceback" not in application.log()
    query = f'fhirpath_telemetry_dropped_total{{service_name="{service}",what="span"}}'

    def accounted():
        lost = {sample.labels["reason"]: int(sample.value) for sample in stack.prometheus.query(query)}
        missing = set(told["ids"]) - stack.jaeger.span_ids(service, began, time.time())
        assert len(missing) <= sum(lost.values()), f"{len(missing)} missing, {lost} counted"
        return {"missing": len(missing), "lost": lost}

    seen = eventually(accounted, patience=90, every=1)
    assert seen["lost"], "the outage was to be longer than what waits in the application"
    return {
        "application:_evaluations": told["evaluations"],
        "application:_evaluations_that_failed": told["wrong"],
        "application:_spans": told["spans"],
        "application:_spans_not_in_Jaeger": seen["missing"],
        "application:_spans_counted_as_lost": ", ".join(f"{n:,} {why}" for why, n in seen["lost"].items()),
    }


@pytest.mark.parametrize(("rate", "wait"), [(500, 1), (2000, 5)])
def test_what_the_collector_acknowledged_survives_its_kill(faulty, data, tmp_path, figures, rate, wait):
    service = f"evaluates-{rate}"
    began = time.time()
    with (
        faulty.changed("otelcol", DECISION_WAIT=f"{wait}s"),
        evaluating(faulty, service, tmp_path, data) as application,
    ):
        with (
            keeping(faulty, f"kept-{rate}", rate // 2) as kept,
            undecided(faulty, f"undecided-{rate}", rate // 2) as open_,
        ):
            eventually(lambda: past_the_tail_sampler(faulty) > rate)
            decided = past_the_tail_sampler(faulty)
            faulty.kill("otelcol")
            slowest = goes_on(application)
            restarted, held = time.time(), len(open_.acknowledged) - decided
            faulty.start("otelcol", DECISION_WAIT=f"{wait}s")
            again = len(kept.acknowledged), len(open_.acknowledged)
            eventually(lambda: len(kept.acknowledged) > again[0] and len(open_.acknowledged) > again[1])
        lost_of_kept = len(kept.acknowledged.keys() - all_arrive(faulty, kept))
        # The answer to a call that the kill came between is not there either, so that these are all.
        there = all_arrive(faulty, open_, {one for one, at in open_.acknowledged.items() if at > restarted})
        lost = len(open_.acknowledged.keys() - there)
        of_application = loses_only_what_it_counts(faulty, service, began, application)
    bound = int(open_.rate * (wait + TICK))
    figures(
        f"Collector killed at {rate:,} spans/s, half of them undecided",
        decision_wait=f"{wait} s, decided once a second",
        kept_by_applications_and_acknowledged=len(kept.acknowledged),
        of_these_lost=lost_of_kept,
        undecided_and_acknowledged=len(open_.acknowledged),
        of_these_lost_in_the_tail_sampler=lost,
        undecided_in_it_when_it_was_killed=int(held),
        decision_wait_and_a_second_times_rate=bound,
        **of_application,
        **{"application:_slowest_evaluation_before_and_during": slowest},
    )
    assert lost <= held
    assert lost <= bound + open_.rate * LATE


@pytest.mark.parametrize(("seconds", "rate"), [(5, 500), (60, 1000)])
def test_nothing_that_reached_the_queue_is_lost_while_jaeger_is_away(faulty, figures, seconds, rate):
    with (
        keeping(faulty, f"kept-for-{seconds}", rate // 2) as kept,
        undecided(faulty, f"undecided-for-{seconds}", rate // 2) as open_,
    ):
        eventually(lambda: kept.acknowledged and past_the_tail_sampler(faulty))
        with jaeger_away(faulty):
            until, sizes = time.monotonic() + seconds, [0]
            while time.monotonic() < until:
                sizes.append(queued(faulty))
                time.sleep(0.5)
            # What the alert looks at.
            eventually(lambda: faulty.prometheus.value("max(otelcol_exporter_queue_size)") >= max(sizes) / 2)
    returned = time.monotonic()
    eventually(lambda: queued(faulty) == 0, patience=120)
    emptied = time.monotonic() - returned
    lost = sum(len(sender.acknowledged.keys() - all_arrive(faulty, sender)) for sender in (kept, open_))
    refused = len(kept.not_acknowledged) + len(open_.not_acknowledged)
    eventually(lambda: faulty.prometheus.value("max(otelcol_exporter_queue_size)") == 0)
    figures(
        f"Jaeger killed, and away for {seconds} s, at {rate:,} spans/s",
        acknowledged=len(kept.acknowledged) + len(open_.acknowledged),
        refused=refused,
        lost=lost,
        queue_before_and_at_the_most=f"{sizes[0]}, {max(sizes):,} spans",
        queue_empty_after_Jaeger_was_back=f"{emptied:.0f} s",
        memory_of_the_collector_and_Jaeger_at_the_most=", ".join(
            f"{most_memory(faulty.pid(name)) / 2**20:.0f} MiB" for name in ("otelcol", "jaeger")
        ),
    )
    assert refused == 0
    assert max(sizes) > rate


def test_a_full_queue_refuses_and_counts_and_applications_go_on(faulty, data, tmp_path, figures):
    began = time.time()
    with (
        faulty.changed("otelcol", OTELCOL_QUEUE_SPANS="3000"),
        evaluating(faulty, "evaluates-on", tmp_path, data) as application,
    ):
        with keeping(faulty, "kept-until-full", 1000) as kept, jaeger_away(faulty):
            eventually(lambda: kept.not_acknowledged)
            slowest = goes_on(application)
            full = queued(faulty)
        lost = len(kept.acknowledged.keys() - all_arrive(faulty, kept))
        of_application = loses_only_what_it_counts(faulty, "evaluates-on", began, application)
        refused = int(of_otelcol(faulty, "otelcol_receiver_refused_spans_total{"))
    figures(
        "Queue of 3,000 spans, Jaeger away, 1,000 spans/s",
        acknowledged=len(kept.acknowledged),
        of_these_lost=lost,
        refused=len(kept.not_acknowledged),
        refused_as=", ".join(kept.codes),
        counted_by_the_collector_as_refused=refused,
        queue_when_it_was_full=full,
        **of_application,
        **{"application:_slowest_evaluation_before_and_during": slowest},
    )
    # Those of the application are among them, each time that it tries.
    assert refused >= len(kept.not_acknowledged)
