"""The collector's memory under load: below its limit where that is steady, and not far above where it is too much."""

from __future__ import annotations

import re
import time

import grpc
import pytest

from tests.stack.clients import eventually
from tests.stack.collector import CONFIGURATION, running
from tests.stack.figures import most_memory, processor_seconds
from tests.stack.otlp import Backend, span, spans_request
from tests.stack.senders import keeping, undecided

pytestmark = pytest.mark.stack_load

SPANS_PER_SECOND = 2000
SECONDS = 60
LIMIT_MIB = 400
NUM_TRACES = int(re.search(r"num_traces: (\d+)", (CONFIGURATION / "otelcol.yaml").read_text())[1])
MUCH = {
    name: name[0] * 120
    for name in (
        "rpc.service",
        "rpc.method",
        "code.function",
        "db.namespace",
        "db.collection.name",
        "faas.trigger",
    )
}


def test_two_thousand_spans_a_second_for_a_minute(make_stack, tmp_path, figures):
    # As shipped, but for the share of traces that is kept: what is lost on the way could not be told from the rest.
    with make_stack(
        tmp_path, DECISION_WAIT="5s", OTELCOL_MEMORY_LIMIT_MIB=str(LIMIT_MIB), BASELINE_PERCENTAGE="100"
    ) as stack:
        pids = {name: stack.pid(name) for name in ("otelcol", "jaeger")}
        before = {name: processor_seconds(pid) for name, pid in pids.items()}

        def total(name, of="otelcol"):
            return int(sum(item for key, item in stack.own_metrics(of).items() if key.startswith(name)))

        queue = [0]
        with (
            keeping(stack, "kept", SPANS_PER_SECOND // 2) as kept,
            undecided(stack, "undecided", SPANS_PER_SECOND // 2) as open_,
        ):
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                queue.append(total("otelcol_exporter_queue_size{"))
                time.sleep(0.5)
        senders = (kept, open_)
        sent = sum(sender.sent for sender in senders)
        eventually(lambda: total("otelcol_exporter_sent_spans_total{") >= sent)
        computed = {name: processor_seconds(pid) - before[name] for name, pid in pids.items()}
        memory = {name: most_memory(pid) for name, pid in pids.items()}
        there = [stack.jaeger.span_ids(sender.service, sender.began, sender.ended) for sender in senders]
        refused = total("otelcol_receiver_refused_spans_total{")
        too_early = total("otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total")
        figures(
            f"{SPANS_PER_SECOND:,} spans/s for {SECONDS} s through the collector into Jaeger",
            spans_per_second=sum(sender.rate for sender in senders),
            spans_sent=sent,
            accepted_by_the_collector=total("otelcol_receiver_accepted_spans_total{"),
            refused=refused,
            dropped_undecided_by_the_tail_sampler=too_early,
            sent_to_Jaeger=total("otelcol_exporter_sent_spans_total{"),
            found_in_Jaeger=sum(map(len, there)),
            queue_at_the_most=f"{max(queue):,} spans",
            memory_of_the_collector_at_the_most=f"{memory['otelcol'] / 2**20:.0f} MiB of {LIMIT_MIB}",
            memory_of_Jaeger_at_the_most=f"{memory['jaeger'] / 2**20:.0f} MiB",
            processor_seconds_of_the_collector=computed["otelcol"],
            processor_seconds_of_Jaeger=computed["jaeger"],
        )
        assert [sender.not_acknowledged for sender in senders] == [set(), set()]
        assert [sender.acknowledged.keys() for sender in senders] == there
        assert (refused, too_early) == (0, 0)
        assert memory["otelcol"] < LIMIT_MIB * 2**20


def test_the_collector_refuses_before_undecided_traces_take_more_memory_than_it_may(
    stack_programs, tmp_path, figures
):
    limit_mib, spans_of_a_trace = 128, 20
    backend = Backend()
    with running(
        stack_programs["otelcol"],
        tmp_path,
        backend,
        OTELCOL_MEMORY_LIMIT_MIB=str(limit_mib),
        GOMEMLIMIT=f"{limit_mib * 80 // 100}MiB",
        DECISION_WAIT="40s",
    ) as collector:

        def send():
            """Whether the collector took a request of undecided traces, each span with much to hold."""
            traces = [undecided_trace_of(spans_of_a_trace) for _ in range(5)]
            try:
                collector.traces(spans_request(*(item for trace in traces for item in trace)), timeout=30)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
            return True

        def total(name):
            lines = collector.get("OTELCOL_TELEMETRY_PORT").splitlines()
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

        eventually(lambda: not send(), every=0)
        open_traces = total("otelcol_processor_tail_sampling_sampling_traces_on_memory")
        figures(
            f"a collector of {limit_mib} MiB full of undecided traces",
            spans_that_it_held_when_it_refused=int(open_traces * spans_of_a_trace),
            memory_at_the_most=f"{most_memory(collector.process.pid) / 2**20:.0f} MiB",
        )
        assert open_traces < NUM_TRACES, "the limiter came first"
        assert most_memory(collector.process.pid) < 1.5 * limit_mib * 2**20
        eventually(send, patience=120)
    backend.stop()


def undecided_trace_of(spans):
    root = span(named=MUCH)
    return [
        root,
        *(span(named=MUCH, trace_id=root.trace_id, parent_span_id=root.span_id) for _ in range(spans - 1)),
    ]
