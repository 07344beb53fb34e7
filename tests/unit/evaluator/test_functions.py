"""The table of functions, against the lists of the specifications."""

from __future__ import annotations

import pytest

from fhirpath_otel.evaluator.functions import FUNCTIONS, Evaluated, Rule
from fhirpath_otel.evaluator.result_types import SYSTEM_NAMES, ResultType

FHIRPATH_2_0_0 = """
    empty exists all allTrue anyTrue allFalse anyFalse subsetOf supersetOf count distinct isDistinct
    where select repeat ofType single first last tail skip take intersect exclude union combine
    iif toBoolean convertsToBoolean toInteger convertsToInteger toDate convertsToDate toDateTime convertsToDateTime
    toDecimal convertsToDecimal toQuantity convertsToQuantity toString convertsToString toTime convertsToTime
    indexOf substring startsWith endsWith contains upper lower replace matches replaceMatches length toChars
    abs ceiling exp floor ln log power round sqrt truncate
    children descendants trace now timeOfDay today not is as aggregate type
"""
FHIR_R4 = """
    extension hasValue getValue resolve ofType elementDefinition slice checkModifiers conformsTo memberOf subsumes
    subsumedBy htmlChecks
"""
LATER_BUILDS = """
    lowBoundary highBoundary precision comparable sort coalesce repeatAll defineVariable lastIndexOf matchesFull
    trim split join encode decode escape unescape toLong convertsToLong sum min max avg
"""
SQL_ON_FHIR = "getResourceKey getReferenceKey"

ARITIES = {
    "where": (1, 1),
    "exists": (0, 1),
    "iif": (2, 3),
    "substring": (1, 2),
    "replace": (2, 2),
    "toQuantity": (0, 1),
    "round": (0, 1),
    "aggregate": (1, 2),
    "now": (0, 0),
    "trace": (1, 2),
    "coalesce": (1, None),
    "sort": (0, None),
    "join": (0, 1),
    "extension": (1, 1),
    "getReferenceKey": (0, 1),
}


@pytest.mark.parametrize(
    "names",
    [FHIRPATH_2_0_0, FHIR_R4, LATER_BUILDS, SQL_ON_FHIR],
    ids=["2.0.0", "FHIR", "later", "SQL on FHIR"],
)
def test_every_function_of_a_specification_is_known(names: str) -> None:
    assert set(names.split()) - FUNCTIONS.keys() == set()


@pytest.mark.parametrize(("name", "arity"), ARITIES.items())
def test_a_function_has_its_arity(name: str, arity: tuple[int, int | None]) -> None:
    spec = FUNCTIONS[name]
    assert (spec.min_arguments, spec.max_arguments) == arity


def test_the_table_is_consistent() -> None:
    for name, spec in FUNCTIONS.items():
        assert spec.name == name
        assert 0 <= spec.optional <= len(spec.arguments)
        assert isinstance(spec.result, (ResultType, Rule))
        for accepted in filter(None, [spec.accepts, *(argument.accepts for argument in spec.arguments)]):
            assert accepted <= SYSTEM_NAMES | {"Reference"}


def test_arguments_are_evaluated_per_item_exactly_where_the_specification_says_so() -> None:
    once = {Evaluated.ONCE, Evaluated.TYPE}
    per_item = {
        name
        for name, spec in FUNCTIONS.items()
        if any(argument.evaluated not in once for argument in spec.arguments)
    }
    assert per_item == {
        *("where", "exists", "all", "select", "repeat", "repeatAll", "aggregate", "iif", "sort", "trace"),
        "defineVariable",
    }


def test_the_last_argument_repeats_where_a_function_takes_any_number() -> None:
    spec = FUNCTIONS["coalesce"]
    assert spec.argument(7) is spec.arguments[0]
