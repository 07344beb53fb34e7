"""What watching evaluations costs: `python -m benchmarks.overhead [--quick] [--json FILE]`.

Each work of `works.py` runs with and without somebody watching in turn, in this process, in blocks of 5 ms. What is
compared is CPU time of this process, exporting included; the interval tells how sure one can be. Where there is a bar,
a pilot run says how many pairs are needed to tell on which side of it the ratio is; where even the most that are run
leave it open, `open` is said. All of it runs in a worker thread, as evaluations of services do: in the main thread each
statement would be handed to another one for Ctrl-C, which makes evaluations longer and telemetry's share smaller.

Spans go out over OTLP to a process of its own, and are flushed within what is measured: every five seconds as the SDK
does by itself, and with plain SDK spans before its queue is full, as it would drop them. Few blocks have a flush, so it
shows in the ratio of the totals only; a quick run is over before the first. The metrics are collected once at the end
of each: what that costs is a figure of its own, to be set against the minute between two collections of the SDK.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks import growth, harness, memory
from benchmarks.harness import Detail, Figure
from benchmarks.hosts import GRPC, HTTP, Sdk, sink
from benchmarks.other_ways import Monitor
from benchmarks.works import WORKS, Evaluate, Work, make_recorder, times, works
from fhirpath_otel import semconv

BLOCK_SECONDS = 0.005
FLUSH_SECONDS = 5.0
FLUSH_SPANS = 1_024  # half of the SDK's queue
GROWTH, MEMORY = "growth", "memory"
PARTS = (*WORKS, GROWTH, MEMORY)
DETAILS = (semconv.OFF, semconv.BASIC, semconv.STAGE_DETAIL, semconv.OPERATOR_DETAIL, semconv.AUTO)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is run: pairs where there is no bar and for a pilot, and between how many where there is one.

    There it is also warmed up for some seconds, in which the first traces, paid in advance, are spent.
    """

    warm_up: float
    pairs: int
    pairs_to_bar: tuple[int, int]
    growth: growth.Effort
    memory: memory.Effort


QUICK = Effort(1.0, 21, (21, 151), growth.Effort(9, 10_000), memory.Effort(1, 100_000))
FULL = Effort(5.0, 101, (1_001, 2_401), growth.Effort(31, 40_000), memory.Effort(3, 4_000_000))


@dataclass(frozen=True, slots=True)
class Arm:
    """A way of watching a work; `flush` is called as often as the SDK would."""

    name: str
    evaluate: Evaluate
    sdk: Sdk | None = None
    has_bar: bool = False
    spans_per_evaluation: int = 0


def arms(work: Work, addresses: dict[str, str]) -> Iterator[Arm]:
    """The ways of watching that there are, each with an SDK of its own."""
    yield Arm("alone again: the noise", work.alone)
    yield Arm("auto, no SDK", work.under(make_recorder(semconv.AUTO)))
    for protocol, details in ((HTTP, DETAILS), (GRPC, (semconv.AUTO,))):
        for detail in details:
            sdk = Sdk(protocol, addresses[protocol])
            evaluate = work.under(make_recorder(detail, **sdk.providers))
            yield Arm(f"{detail}, {protocol}", evaluate, sdk, has_bar=detail == semconv.AUTO)
    for with_stages in (False, True):
        sdk = Sdk(HTTP, addresses[HTTP])
        evaluate = work.in_spans(sdk.traces.get_tracer("plain"), with_stages)
        name = "plain SDK spans, root and stages" if with_stages else "plain SDK spans, root only"
        spans = 1 + work.stages if with_stages else 1
        yield Arm(name, evaluate, sdk, spans_per_evaluation=spans)
    yield Arm("a monitor's 10 %, 1 % if busy", Monitor().watched(work.alone))
    yield Arm("a monitor's 10 %", Monitor(0.1, adaptive=False).watched(work.alone))
    yield Arm("a monitor's 100 %", Monitor(1.0, adaptive=False).watched(work.alone))


class Block:
    """Evaluations in a row under one arm, with the flushes that fall due in them."""

    def __init__(self, arm: Arm, evaluations: int) -> None:
        self._run = times(arm.evaluate, evaluations)
        self._flush: Callable[[], object] = bool if arm.sdk is None else arm.sdk.flush
        self._new_spans = arm.spans_per_evaluation * evaluations
        self._flushed = time.monotonic()
        self._spans = 0

    def __call__(self) -> None:
        """Runs it."""
        self._run()
        self._spans += self._new_spans
        if self._spans > FLUSH_SPANS or time.monotonic() > self._flushed + FLUSH_SECONDS:
            self._flush()
            self._flushed, self._spans = time.monotonic(), 0


def ratio_figures(work: Work, addresses: dict[str, str], effort: Effort) -> Iterator[Figure]:
    """The work under each arm to the work alone."""
    seconds = harness.median_seconds(work.alone, 30)
    evaluations = max(1, round(BLOCK_SECONDS / seconds))
    bare = times(work.alone, evaluations)
    alone = harness.median(harness.cpu_seconds(bare) / evaluations * 1e6 for _ in range(effort.pairs))
    yield alone.figure(f"{work.name}: alone", "µs", evaluations_in_a_block=evaluations)
    for arm in arms(work, addresses):
        block, bar = Block(arm, evaluations), work.bar if arm.has_bar else None
        warm_until = time.monotonic() + (effort.warm_up if bar else effort.warm_up / 10)
        while time.monotonic() < warm_until:
            block()
        if bar is None:
            found = harness.ratio(block, bare, effort.pairs)
        else:
            found = harness.ratio_to_bar(block, bare, bar, effort.pairs, effort.pairs_to_bar)
        details = {} if arm.sdk is None or arm.spans_per_evaluation else account(arm.sdk)
        yield from found.figures(f"{work.name}: {arm.name}", bar, **details)
        if arm.sdk is not None:
            if arm.has_bar:
                yield collection(work, arm)
            arm.sdk.shutdown()


def account(sdk: Sdk) -> dict[str, Detail]:
    """What the metrics say of telemetry: its share of time, the shares recorded in each detail, and one in how many."""
    details: dict[str, Detail] = {}
    for point in sdk.points(semconv.OVERHEAD_RATIO):
        details["own_account"] = 1 + point.value
    recorded = {
        point.attributes[semconv.DETAIL.name]: point.value
        for point in sdk.points(semconv.EVALUATIONS)
        if point.value
    }
    for detail, count in recorded.items():
        details[detail] = f"{count / sum(recorded.values()):.2%}"
    for point in sdk.points(semconv.DETAIL_INTERVAL):
        if point.attributes[semconv.DETAIL.name] == semconv.OPERATOR_DETAIL:
            details["operators_one_in"] = point.value
    return details


def collection(work: Work, arm: Arm) -> Figure:
    """What collecting and exporting the metrics takes, of the minute until the next time."""
    assert arm.sdk is not None
    milliseconds = harness.cpu_seconds(arm.sdk.reader.force_flush) * 1e3
    return Figure(
        f"{work.name}: {arm.name}, one collection",
        milliseconds,
        "ms",
        details={"share_of_a_minute": f"{milliseconds / 60_000:.4%}"},
    )


def measure(folder: Path, effort: Effort, parts: Collection[str] = PARTS) -> Iterator[Figure]:
    """The figures of these parts."""
    with sink(HTTP) as http, sink(GRPC) as grpc:
        with works(folder) as found:
            for work in found:
                if work.name in parts:
                    yield from ratio_figures(work, {HTTP: http, GRPC: grpc}, effort)
        if GROWTH in parts:
            yield from growth.figures(lambda: Sdk(HTTP, http), effort.growth)
        if MEMORY in parts:
            yield from memory.figures(http, effort.memory)


def main() -> None:
    """Measures and prints."""
    parser = harness.options("What watching evaluations costs.")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given again")
    options = parser.parse_args()
    effort, parts = QUICK if options.quick else FULL, options.only or PARTS
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(1) as worker:
        figures = worker.submit(lambda: list(measure(Path(directory), effort, parts))).result()
    harness.report(f"Overhead, DuckDB {duckdb.__version__}", figures, options.json)


if __name__ == "__main__":
    main()
