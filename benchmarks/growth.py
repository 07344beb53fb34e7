"""What an evaluation costs by itself, and whether that stays so with more threads and more expressions.

The evaluations do nothing, so that all that is measured is telemetry; the same loop without any is taken off. The
detail is pinned: `auto` would count most of such short ones only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic, perf_counter_ns
from typing import Any

from benchmarks import harness
from benchmarks.harness import Figure
from benchmarks.hosts import Sdk, disabled_sdk
from benchmarks.other_ways import NotesOnly
from benchmarks.works import make_recorder
from fhirpath_otel import semconv
from fhirpath_otel.telemetry.calls import watch_calls
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.governor import TRACE_EVERY_SECONDS
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.redaction import Template, template_from
from fhirpath_otel.telemetry.watch import Known

EXPRESSIONS = 10_000
TOLD_APART = 200
DISABLED_MICROSECONDS = 1.0
FLAT = 1.25
"""A cost counts as flat up to so many times that of one thread and one expression."""

SIZES = ((1, 1), (4, 1), (16, 1), (1, 100), (1, EXPRESSIONS), (16, EXPRESSIONS))
"""Threads and expressions."""

Evaluate = Callable[[], object]
Items = list[Any]

_NO_ITEMS: Items = []


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is run."""

    rounds: int
    evaluations: int
    sizes: tuple[tuple[int, int], ...] = SIZES


def templates(count: int) -> list[Template]:
    """So many expressions."""
    return [template_from(f"Patient.name.where(use = ?).given[{number}]") for number in range(count)]


def nothing() -> Callable[[], Items]:
    """An evaluation that takes no time: a function of its own, as each compiled expression is."""

    def evaluate() -> Items:
        return _NO_ITEMS

    return evaluate


def noted(recorder: Any, template: Template) -> Evaluate:
    """An evaluation with notes, as the pipeline makes them of what it has compiled before."""
    known = Known()

    def evaluate() -> None:
        evaluation = recorder.begin()
        evaluation.template, evaluation.cache_hit, evaluation.compiled_before = template, True, True
        evaluation.execution_mode = semconv.PUSHDOWN
        recorder.expect(evaluation, known)
        began_ns = perf_counter_ns()
        evaluation.stages.append((semconv.PARSE, evaluation.start_ns, began_ns))
        evaluation.stages.append((semconv.SQL, began_ns, perf_counter_ns()))
        evaluation.result_count = evaluation.consumer_ns = evaluation.sql_active_ns = 0
        recorder.finish(evaluation)

    return evaluate


def called(recorder: Any, template: Template) -> Evaluate:
    """A watched call; the call itself without a recorder."""

    def describe(evaluation: Evaluation) -> None:
        evaluation.template, evaluation.engine_name = template, "fhirpathpy"
        evaluation.execution_mode, evaluation.compiled_before = semconv.IN_MEMORY, True

    evaluate = nothing()
    return watch_calls(recorder, evaluate, describe) if isinstance(recorder, Recorder) else evaluate


WAYS: dict[str, Callable[[Any, Template], Evaluate]] = {"notes": noted, "calls": called}


def in_threads(evaluations: list[Evaluate], count: int, threads: int) -> Callable[[], None]:
    """`count` evaluations, of each expression in turn, by so many threads."""

    def run(first: int) -> None:
        for number in range(first, first + count // threads):
            evaluations[number % len(evaluations)]()

    def all_threads() -> None:
        workers = [
            threading.Thread(target=run, args=(number * len(evaluations) // threads,))
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return all_threads


class Ahead:
    """The clock, as far ahead as one wants."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The time."""
        return monotonic() + self.seconds


class Case:
    """Evaluations under a recorder, whose clock this may set, and the same without."""

    def __init__(
        self,
        way: str,
        recorder: Any,
        clock: Ahead,
        found: list[Template],
        count: int,
        *,
        threads: int = 1,
    ) -> None:
        make = WAYS[way]
        watched = [make(recorder, template) for template in found]
        bare = [make(NotesOnly(), template) for template in found]
        self._count = count
        self._watched = in_threads(watched, count, threads)
        self._bare = in_threads(bare, count, threads)
        # The trace of the first sighting is kept of as many as there is room for; it is not, where they come at once.
        for evaluate in watched[:TOLD_APART]:
            clock.seconds += TRACE_EVERY_SECONDS
            evaluate()
        in_threads(watched, 2 * len(found) + 1_000, 1)()

    def microseconds(self) -> float:
        """What telemetry of one evaluation takes."""
        return (harness.cpu_seconds(self._watched) - harness.cpu_seconds(self._bare)) / self._count * 1e6


def figures(make_sdk: Callable[[], Sdk], effort: Effort) -> Iterator[Figure]:
    """What is left where telemetry is off, and how the cost grows."""
    yield from disabled_figures(make_sdk(), effort)
    for way in WAYS:
        yield from growth_figures(way, make_sdk, effort)


def disabled_figures(sdk: Sdk, effort: Effort) -> Iterator[Figure]:
    """The cost where nobody listens."""
    clock = Ahead()
    with disabled_sdk() as disabled:
        recorders = {
            "no SDK": make_recorder(semconv.AUTO),
            "OTEL_SDK_DISABLED": make_recorder(semconv.AUTO, **disabled),
            "off, with an SDK": make_recorder(semconv.OFF, **sdk.providers),
        }
        for way in WAYS:
            for name, recorder in recorders.items():
                case = Case(way, recorder, clock, templates(1), effort.evaluations)
                cost = harness.median(case.microseconds() for _ in range(effort.rounds))
                yield cost.figure(f"{way}, {name}: an evaluation", "µs", DISABLED_MICROSECONDS)
    sdk.shutdown()


def growth_figures(way: str, make_sdk: Callable[[], Sdk], effort: Effort) -> Iterator[Figure]:
    """The cost with stages of every evaluation, for some numbers of threads and expressions, and its ratio to one."""
    sizes = effort.sizes
    found = templates(max(expressions for _, expressions in sizes))
    sdks, cases = [make_sdk() for _ in sizes], list[Case]()
    for sdk, (threads, expressions) in zip(sdks, sizes, strict=True):
        clock = Ahead()
        recorder = make_recorder(semconv.STAGE_DETAIL, clock, **sdk.providers)
        cases.append(Case(way, recorder, clock, found[:expressions], effort.evaluations, threads=threads))
    rounds = [[case.microseconds() for case in cases] for _ in range(effort.rounds)]
    for number, (threads, expressions) in enumerate(sizes):
        name = f"{way}: {threads} threads, {expressions:,} expressions"
        yield harness.median(one[number] for one in rounds).figure(name, "µs")
        if number:
            to_one = harness.median(one[number] / one[0] for one in rounds)
            yield to_one.figure("    to one of each", "ratio", FLAT)
    for sdk in sdks:
        sdk.shutdown()
