"""Whether telemetry grows or loses count: `python -m benchmarks.soak [--quick] [--evaluations N] [--json FILE]`.

Evaluations of 24 hours, in a clock that is simulated: the sampler and the governor go by it. Each simulated minute the
metrics are collected and the spans handed to exporters that fail in turns. At the end every evaluation must be
accounted for, and every span; the program ends with status 1 where one is not. How fast the resident memory grows is
fitted over the samples of the second half, from a million evaluations on.
"""

from __future__ import annotations

import itertools
import logging
import math
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import harness
from benchmarks.harness import Figure, Interval
from benchmarks.memory import resident_megabytes
from benchmarks.soak_hosts import Host
from benchmarks.soak_load import DIMENSION, EXPRESSIONS, Clock, Load
from benchmarks.works import make_recorder
from fhirpath_otel import semconv
from fhirpath_otel.telemetry.recorder import Recorder

EVALUATIONS, QUICK_EVALUATIONS = 5_000_000, 200_000
DAY_SECONDS = 86_400
MINUTES = 1_440
FEWEST_A_ROUND = 1_000
THREADS = 4
SAMPLES = 200
ROUNDS_A_TURN = 7
WARM_MILLIONS = 1.0
"""Until then what is bounded fills up: percentiles of each expression, sightings, exemplars, queues."""

FEWEST_SAMPLES = 20
FLAT_KILOBYTES = 100.0
"""Per million evaluations; one small object that leaks in a thousand of them is more."""

FLAT = f"≤ {FLAT_KILOBYTES:g}"

Sample = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a run leaves behind; the samples are (million evaluations, megabytes)."""

    evaluations: int
    seconds: float
    samples: list[Sample]
    recorder: Recorder
    host: Host


def soak(evaluations: int) -> Soaked:
    """Runs so many evaluations, or a few less: as many in each round, and in each thread."""
    host, clock = Host(), Clock()
    recorder = make_recorder(
        semconv.AUTO,
        clock,
        host.export_cost,
        dimensions=(DIMENSION,),
        tracer_provider=host.traces,
        meter_provider=host.metrics,
    )
    host.recorder = recorder
    rounds = max(1, min(MINUTES, evaluations // FEWEST_A_ROUND))
    each = evaluations // rounds // THREADS
    load = Load(recorder, clock, DAY_SECONDS / (each * THREADS * rounds))
    began, samples, done = time.monotonic(), list[Sample](), 0
    for number in range(rounds):
        _round(load, done, each)
        done += each * THREADS
        host.collect()
        if number % ROUNDS_A_TURN == 0:
            host.next_turn()
        if number % math.ceil(rounds / SAMPLES) == 0:
            samples.append((done / 1e6, resident_megabytes()))
    host.collect()
    return Soaked(done, time.monotonic() - began, samples, recorder, host)


def _round(load: Load, first: int, each: int) -> None:
    threads = [
        threading.Thread(target=load.requests, args=(first + number * each, each))
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def accounting(run: Soaked) -> list[Figure]:
    """What has to add up; `holds` says whether it does."""
    host = run.host
    traces = host.counts(semconv.TRACES)
    lost = host.counts(semconv.LOST)
    lost_evaluations, lost_spans = (
        sum(count for (what, _), count in lost.items() if what == kind)
        for kind in (semconv.WHAT_EVALUATION, semconv.WHAT_SPAN)
    )
    handed = host.handed_over
    kept = sum(count for (decision, _), count in traces.items() if decision == semconv.KEPT)
    could_be_kept = run.evaluations - traces.get((semconv.DROPPED, semconv.UNSAMPLED_PARENT), 0)
    detailed = host.counts(semconv.EVALUATIONS)
    active = sum(host.counts(semconv.EVALUATION_ACTIVE).values())
    durations = sum(host.counts(semconv.EVALUATION_DURATION).values())
    return [
        Figure("evaluated", run.evaluations, "evaluations"),
        *(
            Figure(f"    {decision}: {reason}", count, "evaluations")
            for (decision, reason), count in sorted(traces.items())
        ),
        _adds_up("kept, suppressed, dropped, lost", sum(traces.values()) + lost_evaluations, run.evaluations),
        _adds_up("evaluations lost", lost_evaluations, 0),
        _adds_up("by what was recorded of them", sum(detailed.values()), run.evaluations),
        *(Figure(f"    {detail}", count, "evaluations") for (detail,), count in sorted(detailed.items())),
        _adds_up("durations", durations, run.evaluations),
        _adds_up("still active", active, 0),
        _adds_up("roots handed over, of kept traces", handed.roots, kept),
        _adds_up(
            "spans exported or lost, of those handed over", host.exporter.taken + lost_spans, handed.spans
        ),
        Figure("    exported", host.exporter.taken, "spans"),
        *(
            Figure(f"    lost {what}s: {reason}", count, f"{what}s")
            for (what, reason), count in sorted(lost.items())
        ),
        Figure("kept traces stand for, of those that could be", handed.stands_for / could_be_kept, "ratio"),
    ]


def _adds_up(name: str, value: float, expected: float) -> Figure:
    return Figure(name, value, "", f"= {expected:,}", value == expected)


def growth(samples: Sequence[Sample]) -> Interval:
    """Kilobytes per million evaluations: the slope of a line through the samples, with its 95 % interval.

    Neighbouring samples are alike; the interval is as wide as fewer independent ones would make it.
    """
    count = len(samples)
    x_mean, y_mean = (sum(values) / count for values in zip(*samples, strict=True))
    spread = sum((x - x_mean) ** 2 for x, _ in samples)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in samples) / spread
    rest = [y - y_mean - slope * (x - x_mean) for x, y in samples]
    squares = sum(one**2 for one in rest)
    alike = sum(one * other for one, other in itertools.pairwise(rest)) / squares if squares else 0.0
    alike = min(max(alike, 0.0), 0.95)
    reach = 1.96 * math.sqrt(squares / (count - 2) / spread * (1 + alike) / (1 - alike))
    return Interval(*(1024 * one for one in (slope, slope - reach, slope + reach)))


def figures(run: Soaked) -> list[Figure]:
    """What to print beside the accounting; a run that is over before it is warm tells nothing of growth."""
    half = run.samples[len(run.samples) // 2][0]
    warm = [sample for sample in run.samples if sample[0] >= max(half, WARM_MILLIONS)]
    found = [
        Figure("evaluations in a second", run.evaluations / run.seconds, "1/s"),
        Figure("resident memory at the end", run.samples[-1][1], "MB"),
    ]
    name = "growth per million evaluations"
    if len(warm) < FEWEST_SAMPLES:
        slope = growth(run.samples)
        limits = (slope.low, slope.high)
        note: dict[str, harness.Detail] = {"over_before": "it was warm"}
        return [*found, Figure(name, slope.value, "kB", FLAT, limits=limits, details=note)]
    return [
        *found,
        Figure("resident memory when it was warm", warm[0][1], "MB"),
        growth(warm).figure(name, "kB", FLAT_KILOBYTES),
    ]


def main() -> None:
    """Runs, prints, and fails where something does not add up."""
    parser = harness.options("Whether telemetry grows or loses count in a simulated day.")
    parser.add_argument("--evaluations", type=int, help=f"instead of {EVALUATIONS:,}")
    options = parser.parse_args()
    run = soak(options.evaluations or (QUICK_EVALUATIONS if options.quick else EVALUATIONS))
    accounted = accounting(run)
    title = f"{run.evaluations:,} evaluations of {EXPRESSIONS} expressions in 24 simulated hours, {THREADS} threads"
    harness.report(title, [*accounted, *figures(run)], options.json)
    if any(one.holds is False for one in accounted):
        sys.exit(1)


if __name__ == "__main__":
    # That exports fail is meant, and counted.
    logging.getLogger("fhirpath_otel").setLevel(logging.ERROR)
    main()
