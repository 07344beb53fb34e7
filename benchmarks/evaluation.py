"""Evaluation against SQL written by hand and against fhirpathpy: `python -m benchmarks.evaluation [--quick]`.

The expressions a–d run over generated resources, once through `Database.evaluate` and once as the hand-written
statement below, in turn. Both return the same rows (asserted before anything is timed). Two ratios are printed: into
Python (every row fetched, the whole pipeline included) and in the database alone (the statement's rows folded into one
hash there). fhirpathpy runs over a part of the resources, and its time is scaled up.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import fhirpathpy
import msgspec
from fhirpathpy.models import models

import fhirpath_otel as fo
from benchmarks import harness
from benchmarks.harness import Figure
from fhirpath_otel.evaluator.lowering import lower
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import cached_parse, parse
from fhirpath_otel.evaluator.plan import Plan
from fhirpath_otel.evaluator.typecheck import check
from fhirpath_otel.population import DEFAULT_SEED, resources
from fhirpath_otel.population.draw import Draw

EXPRESSIONS = {
    "a": "Patient.name.given",
    "b": "Patient.name.where(use='official').family",
    "c": (
        "Observation.where(code.coding.exists(system='http://loinc.org' and code='8480-6'))"
        ".value.ofType(Quantity).value"
    ),
    "d": "Patient.telecom.where(system='phone').count()",
}

# As well as the author can write them: scans of the columns used, no joins, no sorting, no second pass.
BY_HAND = {
    "a": "SELECT id, unnest(n.given) AS v FROM (SELECT id, unnest(r.name) AS n FROM Patient)",
    "b": (
        "SELECT id, n.family AS v FROM (SELECT id, unnest(r.name) AS n FROM Patient)"
        " WHERE n.use = 'official' AND n.family IS NOT NULL"
    ),
    "c": (
        "SELECT id, r.valueQuantity.value AS v FROM Observation"
        " WHERE len(list_filter(r.code.coding, lambda c: c.system = 'http://loinc.org' AND c.code = '8480-6')) > 0"
        " AND r.valueQuantity.value IS NOT NULL"
    ),
    "d": "SELECT id, coalesce(len(list_filter(r.telecom, lambda t: t.system = 'phone')), 0) AS v FROM Patient",
}


def write_resources(folder: Path, count: int) -> None:
    """`count` patients and `count` observations."""
    draw = Draw(DEFAULT_SEED)
    encode = msgspec.json.Encoder(decimal_format="number").encode
    with (
        (folder / "Patient.ndjson").open("wb") as patients,
        (folder / "Observation.ndjson").open("wb") as observations,
    ):
        for _ in range(count):
            patient, born, last = resources.patient(draw)
            subject = {"reference": f"Patient/{patient['id']}"}
            _, begin = resources.encounter(draw, subject, born, last)
            observation = draw.one(resources.OBSERVATIONS)(draw, {"subject": subject}, begin)
            patients.write(encode(patient) + b"\n")
            observations.write(encode(observation) + b"\n")


def planned(text: str) -> Plan:
    """Parsed, checked and lowered, without any cache."""
    model = load_model()
    typed = check(parse(text), text, None, model)
    assert typed.resource_type is not None
    return lower(typed, typed.resource_type, model)


def folded(statement: str) -> str:
    """The statement's rows as one hash, computed in the database."""
    return f"SELECT count(*), bit_xor(hash(id, v)) FROM ({statement}) AS t(id, v)"


def compile_figures(runs: int) -> Iterator[Figure]:
    """Parse, check and plan of each expression, and a look into the cache."""
    for name, text in EXPRESSIONS.items():
        planned(text)
        parse_only = harness.median_seconds(partial(parse, text), runs) * 1e6
        cached = harness.median_seconds(partial(cached_parse, text), runs) * 1e6
        yield harness.at_most(f"parse {name}", parse_only, "µs", 15)
        yield harness.at_most(
            f"parse + check + plan {name}, cold",
            harness.median_seconds(partial(planned, text), runs) * 1e6,
            "µs",
            150,
        )
        yield harness.at_most(f"parse {name}, cached", cached, "µs", 5)


def evaluation_figures(database: Any, connection: duckdb.DuckDBPyConnection, runs: int) -> Iterator[Figure]:
    """Ours against the statements written by hand."""
    for name, text in EXPRESSIONS.items():
        hand = BY_HAND[name]
        statement = database.print(planned(text))
        ours = database.evaluate(text).fetchall()
        theirs = connection.execute(hand).fetchall()
        if name == "c":
            theirs = [(id_, Decimal(value)) for id_, value in theirs]
        assert ours == theirs, f"{name}: the rows differ"

        python = harness.paired(
            partial(_rows, database.evaluate, text),
            partial(_rows, connection.execute, hand),
            runs,
        )
        inside = harness.paired(
            partial(_rows, connection.execute, folded(statement.text), list(statement.parameters)),
            partial(_rows, connection.execute, folded(hand)),
            runs,
        )
        yield Figure(f"{name}: rows", len(ours), "rows")
        yield Figure(f"{name}: by hand, in the database", inside[1] * 1e3, "ms")
        yield harness.at_most(f"{name}: ours / by hand, in the database", inside[2], "ratio", 2)
        yield Figure(f"{name}: by hand, into Python", python[1] * 1e3, "ms")
        yield harness.at_most(f"{name}: ours / by hand, into Python", python[2], "ratio", 2)


def _rows(execute: Callable[..., Any], *arguments: Any) -> object:
    return execute(*arguments).fetchall()


def _each(evaluate: Callable[[Any], object], resources: list[Any]) -> object:
    return [evaluate(one) for one in resources]


def fhirpathpy_figures(folder: Path, count: int, database: Any) -> Iterator[Figure]:
    """The loop over fhirpathpy against ours."""
    part = min(count, 500)
    for name, text in EXPRESSIONS.items():
        with (folder / f"{text.partition('.')[0]}.ndjson").open() as lines:
            parsed = [json.loads(line) for line in itertools.islice(lines, part)]
        evaluate = fhirpathpy.compile(text, models["r4"])
        loop = harness.seconds(partial(_each, evaluate, parsed)) * count / part
        ours = harness.median_seconds(partial(_rows, database.evaluate, text), 3)
        yield Figure(f"{name}: fhirpathpy, scaled from {part}", loop, "s")
        yield Figure(f"{name}: fhirpathpy / ours", loop / ours, "ratio")


def main() -> None:
    """Makes the resources, loads them, measures, and prints."""
    options = harness.options("Evaluation against SQL written by hand and against fhirpathpy.").parse_args()
    count, runs = (20_000, 7) if options.quick else (100_000, 15)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_resources(folder, count)
        figures = list(compile_figures(300))
        with fo.connect(folder / "benchmark.duckdb") as database:
            database.load(folder / "Patient.ndjson", folder / "Observation.ndjson")
            connection = database.cursor()
            figures += evaluation_figures(database, connection, runs)
            figures += fhirpathpy_figures(folder, count, database)
    harness.report(
        f"Evaluation over {count:,} resources of a type, DuckDB {duckdb.__version__}", figures, options.json
    )


if __name__ == "__main__":
    main()
