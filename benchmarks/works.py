"""What is watched: evaluations that take from 80 µs to 6 ms, each with and without somebody watching.

Without telemetry means that no recorder is there; the pipeline's own notes stay, as its result explains itself by them.
DuckDB has one thread, and takes 300 µs and more for any statement, so that no evaluation by SQL is shorter.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fhirpathpy
from fhirpathpy.models import models

import fhirpath_otel as fo
from benchmarks.evaluation import write_resources
from benchmarks.other_ways import NotesOnly, PlainSpans, plain_spans
from fhirpath_otel import semconv, settings
from fhirpath_otel.analysis.analyser import Analyser
from fhirpath_otel.engines.fhirpathpy import with_operators
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.template import operator_names
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.telemetry.calls import watch_calls
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.export_cost import ExportCost
from fhirpath_otel.telemetry.governor import Governor
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.redaction import Disclosure, template_from

if TYPE_CHECKING:
    from opentelemetry import trace

COMPILED = "Patient.name.where(use='official').given.first()"
FEW, FEW_ROWS = "Patient.active", 2
MANY, MANY_ROWS = "Patient.name.given", 4_000
WORKS = ("fhirpathpy", "in memory", "small pipeline", "large pipeline")

Evaluate = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Work:
    """Something that is evaluated, for which telemetry may take `bar` times as long.

    `alone` evaluates it, `under` gives it under a recorder, `in_spans` with plain SDK spans, of stages too or not.
    """

    name: str
    bar: float
    alone: Evaluate
    under: Callable[[Recorder], Evaluate]
    in_spans: Callable[[trace.Tracer, bool], Evaluate]
    stages: int


def make_recorder(
    detail: str,
    clock: Callable[[], float] | None = None,
    export_cost: ExportCost | None = None,
    **providers: Any,
) -> Recorder:
    """A recorder as `configuration.recorder` makes it, with its governor at this detail and other providers.

    `clock` is what sampler and governor go by, `export_cost` what the exporters measure.
    """
    values, analyser, model = settings.current(), Analyser(), load_model()
    reasons = Reasons(values)
    clocks: dict[str, Any] = {} if clock is None else {"clock": clock}
    governor = Governor(values.overhead_budget, detail, export_cost=export_cost, **clocks)
    return Recorder(
        TailSampler(reasons.policies, values.max_traces_per_second, affords=governor.affords_trace, **clocks),
        analyse=analyser,
        may_find=analyser.may_find,
        ordinary=reasons,
        governor=governor,
        disclosure=Disclosure(
            values.capture_expression,
            model.resource_types.__contains__,
            operator_names(model).__contains__,
        ),
        max_expressions=values.max_expressions,
        **providers,
    )


@contextlib.contextmanager
def works(folder: Path) -> Iterator[list[Work]]:
    """The works, cheapest first."""
    with _loaded(folder / "few", FEW_ROWS) as few, _loaded(folder / "many", MANY_ROWS) as many:
        with (folder / "few" / "Patient.ndjson").open() as lines:
            patient = json.loads(next(lines))
        yield [
            _compiled(patient),
            _pipeline("in memory", few, FEW, 1.02, "memory"),
            _pipeline("small pipeline", few, FEW, 1.02),
            _pipeline("large pipeline", many, MANY, 1.005),
        ]


@contextlib.contextmanager
def _loaded(folder: Path, count: int) -> Iterator[fo.Database]:
    folder.mkdir()
    write_resources(folder, count)
    with fo.connect(folder / "benchmark.duckdb") as database:
        database.load(folder / "Patient.ndjson")
        database.cursor().execute("SET threads = 1")
        yield database


def _compiled(patient: Any) -> Work:
    """A compiled expression of fhirpathpy over one resource."""
    compiled = fhirpathpy.compile(COMPILED, models["r4"])
    template = template_from("Patient.name.where(use = ?).given.first()")

    def describe(evaluation: Evaluation) -> None:
        evaluation.template, evaluation.engine_name = template, "fhirpathpy"
        evaluation.execution_mode, evaluation.compiled_before = semconv.IN_MEMORY, True

    def under(recorder: Recorder) -> Evaluate:
        watched = watch_calls(recorder, compiled, describe, with_operators=with_operators(compiled, COMPILED))
        return lambda: watched(patient)

    def alone() -> object:
        return compiled(patient)

    def in_spans(tracer: trace.Tracer, with_stages: bool) -> Evaluate:
        return plain_spans(tracer, alone, semconv.IN_MEMORY if with_stages else None)

    return Work("fhirpathpy", 1.02, alone, under, in_spans, 1)


def _pipeline(name: str, database: fo.Database, expression: str, bar: float, mode: str = "auto") -> Work:
    def under(recorder: Any) -> Evaluate:
        def evaluate() -> None:
            database.recorder = recorder
            database.evaluate(expression, mode=mode).fetchall()

        return evaluate

    def in_spans(tracer: trace.Tracer, with_stages: bool) -> Evaluate:
        return under(PlainSpans(tracer, with_stages=with_stages))

    return Work(name, bar, under(NotesOnly()), under, in_spans, 3)


def times(evaluate: Evaluate, count: int) -> Evaluate:
    """So many evaluations in a row."""

    def run() -> None:
        for _ in itertools.repeat(None, count):
            evaluate()

    return run
