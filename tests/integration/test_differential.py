"""SQL against memory: the same rows, item by item, for expressions over real and over synthetic resources.

The two share the syntax tree and nothing else: one prints a statement over typed columns, the other walks the JSON text
of each resource. Where they agree, both have the specification right, or the same misreading of it.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings

import fhirpath_otel as fo
from fhirpath_otel import population
from fhirpath_otel.errors import EvaluationError, ExpressionTypeError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import root_type
from tests.integration.grown_expressions import Seen, expressions, seen
from tests.integration.odd_resources import odd

DATA = Path(__file__).with_name("data")
PATIENTS = 60


def lines(name: str) -> list[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


EXPRESSIONS = lines("differential.txt")
ERRORS = lines("differential_errors.txt")


@pytest.fixture(scope="module")
def databases(shared_data):
    with fo.connect(":memory:") as bundles, fo.connect(":memory:") as bulk:
        bundles.load(shared_data / "synthea-bundles")
        bulk.load(shared_data / "synthea-bulk-10")
        yield bundles, bulk


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population")
    population.write(folder, PATIENTS)
    with fo.connect(":memory:") as database:
        database.load(folder)
        yield database


def exact(value: Any) -> Any:
    """Equal for values that are the same FHIR JSON: Python has True == 1, and a number may be int or Decimal."""
    if isinstance(value, dict):
        return {key: exact(below) for key, below in value.items()}
    if isinstance(value, list):
        return [exact(below) for below in value]
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return "number", Decimal(value)
    return type(value).__name__, value


def rows(database: fo.Database, expression: str, mode: str, resource_type: str | None = None) -> Any:
    """The rows, or the place of the EvaluationError."""
    try:
        with database.evaluate(expression, resource_type=resource_type, mode=mode) as result:
            return [(id_, exact(value)) for id_, value in result]
    except EvaluationError as error:
        return "error", error.start, error.end


def is_error(answer: Any) -> bool:
    return answer[:1] == ("error",)


def answering(databases, expression: str) -> list[fo.Database]:
    """The databases that have resources of the expression's type."""
    root = root_type(parse(expression), load_model())
    return [database for database in databases if root in database.resource_types()]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_sql_and_memory_give_the_same_rows(databases, expression):
    asked = answering(databases, expression)
    assert asked, "no database has this type"
    for database in asked:
        with database.evaluate(expression) as result:
            assert result.mode == "sql"
            in_sql = [(id_, exact(value)) for id_, value in result]
        assert in_sql == rows(database, expression, "memory")


@pytest.mark.parametrize("expression", ERRORS)
def test_sql_and_memory_refuse_several_items_at_the_same_place(databases, expression):
    answers = [
        (rows(database, expression, "sql"), rows(database, expression, "memory"))
        for database in answering(databases, expression)
    ]
    assert all(in_sql == in_memory for in_sql, in_memory in answers)
    assert any(is_error(in_sql) for in_sql, _ in answers)


def test_most_of_the_expressions_have_an_answer(databases):
    answered = [
        expression
        for expression in EXPRESSIONS
        if any(rows(database, expression, "sql") for database in answering(databases, expression))
    ]
    assert len(EXPRESSIONS) >= 80
    assert len(answered) >= 0.9 * len(EXPRESSIONS)


def grown_outcomes(database: fo.Database, roots: list[Seen], examples: int) -> Counter[str]:
    """How many grown expressions gave rows, nothing or an error, the same in both; how many are not in SQL."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(expressions(roots))
    def agree(grown: tuple[str, str]) -> None:
        resource_type, expression = grown
        try:
            in_sql = rows(database, expression, "sql", resource_type)
        except ExpressionTypeError as error:
            if not error.message.startswith("SQL cannot express"):
                raise
            outcomes["not in SQL"] += 1
            assume(False)
        in_memory = rows(database, expression, "memory", resource_type)
        outcomes["error" if is_error(in_sql) else "rows" if in_sql else "nothing"] += 1
        # Of two operands that are each an error, either may be found first.
        assert in_sql == in_memory or (is_error(in_sql) and is_error(in_memory))

    agree()
    return outcomes


def test_grown_expressions_give_the_same_rows_or_the_same_error(synthetic):
    outcomes = grown_outcomes(synthetic, seen(population.generate(PATIENTS), load_model()), 500)
    in_sql = outcomes["rows"] + outcomes["nothing"] + outcomes["error"]
    assert in_sql > 10 * outcomes["not in SQL"], outcomes
    assert outcomes["rows"] > 2 * outcomes["nothing"], outcomes
    assert outcomes["error"] > 10, outcomes


def test_grown_expressions_over_odd_resources_give_the_same_too(tmp_path):
    resources = list(odd(population.generate(PATIENTS), load_model(), seed=1))
    encode = msgspec.json.Encoder(decimal_format="number").encode
    path = tmp_path / "odd.ndjson"
    path.write_bytes(b"\n".join(encode(resource) for resource in resources))
    with fo.connect(":memory:") as database:
        database.load(path)
        outcomes = grown_outcomes(database, seen(resources, load_model()), 400)
    assert outcomes["rows"] > 100, outcomes
