"""All functions of FHIRPath that an expression may call: how many arguments, what they take, what they give.

Sources: FHIRPath 2.0.0 (https://hl7.org/fhirpath/N1/#functions), its additions in FHIR
(https://hl7.org/fhir/R4/fhirpath.html#functions), the functions of the FHIRPath build that the official test suite
calls, and the keys of SQL on FHIR (https://sql-on-fhir.org/ig/latest/StructureDefinition-ViewDefinition.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fhirpath_otel.evaluator.operators import NUMBERS, TEMPORALS
from fhirpath_otel.evaluator.result_types import BOOLEAN, INTEGER, STRING, UNKNOWN, ResultType, one_of


class Rule(Enum):
    """How a result depends on the call, where it is not always the same."""

    INPUT = "types and cardinality of the input"
    ITEM = "one item of the input"
    SYSTEM = "the System type that the input converts to"
    DECIMAL = "as SYSTEM, but Decimal for whole numbers"
    CAST = "what of the input is of the type in the argument"
    PROJECTION = "the argument's result for each item"
    CLOSURE = "the argument's result, applied to itself again and again"
    UNION = "the items of the input and of the argument"
    ALTERNATIVES = "the result of one of the branches"
    FOLD = "the result of the first argument"


class Evaluated(Enum):
    """When an argument is evaluated, and what its result may be."""

    PER_ITEM = "for each item of the input, which is $this"
    CRITERION = "as PER_ITEM, and Boolean"
    SORT_KEY = "as PER_ITEM; a minus in front means descending"
    TYPE = "never: it names a type"
    ONCE = "once, in the context of the call"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. `accepts` are System types; None takes any."""

    evaluated: Evaluated = Evaluated.ONCE
    accepts: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One function.

    `accepts` are the types (as operators see them) that an item of the input may have, None for any. A `singleton`
    function fails at evaluation if its input has several items. `each` gives one result for every item of the input. A
    function that is not `contextual` does not look at its input at all. `repeats` lets the last argument repeat.
    """

    name: str
    result: ResultType | Rule
    arguments: tuple[Argument, ...] = ()
    optional: int = 0
    accepts: frozenset[str] | None = None
    singleton: bool = False
    each: bool = False
    contextual: bool = True
    repeats: bool = False

    @property
    def min_arguments(self) -> int:
        """How many a call must have."""
        return len(self.arguments) - self.optional

    @property
    def max_arguments(self) -> int | None:
        """How many a call may have; None where there is no limit."""
        return None if self.repeats else len(self.arguments)

    def argument(self, position: int) -> Argument:
        """The argument at a 0-based position of a call."""
        return self.arguments[min(position, len(self.arguments) - 1)]


DECIMAL = one_of("System.Decimal")

_any = Argument()
_per_item = Argument(Evaluated.PER_ITEM)
_criterion = Argument(Evaluated.CRITERION)  # any single item stands for true: singleton evaluation
_boolean = Argument(Evaluated.CRITERION, frozenset(("Boolean",)))
_sort_key = Argument(Evaluated.SORT_KEY)
_type = Argument(Evaluated.TYPE)
_string = Argument(accepts=frozenset(("String",)))
_integer = Argument(accepts=frozenset(("Integer", "Long")))
_number = Argument(accepts=frozenset(NUMBERS))
_quantity = Argument(accepts=frozenset((*NUMBERS, "Quantity")))

STRINGS = frozenset(("String",))
BOOLEANS = frozenset(("Boolean",))
DATES = frozenset(("Date", "DateTime"))
TIMES = frozenset(("DateTime", "Time"))
QUANTITIES = frozenset((*NUMBERS, "Quantity"))
BOUNDED = frozenset((*NUMBERS, *TEMPORALS, "Quantity"))


def _existence() -> list[FunctionSpec]:
    return [
        FunctionSpec("empty", BOOLEAN),
        FunctionSpec("exists", BOOLEAN, (_criterion,), optional=1),
        FunctionSpec("all", BOOLEAN, (_criterion,)),
        *(
            FunctionSpec(name, BOOLEAN, accepts=BOOLEANS)
            for name in ("allTrue", "anyTrue", "allFalse", "anyFalse")
        ),
        FunctionSpec("subsetOf", BOOLEAN, (_any,)),
        FunctionSpec("supersetOf", BOOLEAN, (_any,)),
        FunctionSpec("count", INTEGER),
        FunctionSpec("distinct", Rule.INPUT),
        FunctionSpec("isDistinct", BOOLEAN),
        FunctionSpec("not", BOOLEAN, singleton=True),
        FunctionSpec("hasValue", BOOLEAN),
    ]


def _collections() -> list[FunctionSpec]:
    return [
        FunctionSpec("where", Rule.INPUT, (_criterion,)),
        FunctionSpec("select", Rule.PROJECTION, (_per_item,)),
        FunctionSpec("repeat", Rule.CLOSURE, (_per_item,)),
        FunctionSpec("repeatAll", Rule.CLOSURE, (_per_item,)),
        FunctionSpec("ofType", Rule.CAST, (_type,)),
        FunctionSpec("as", Rule.CAST, (_type,), singleton=True),
        FunctionSpec("is", BOOLEAN, (_type,), singleton=True),
        FunctionSpec("single", Rule.ITEM, singleton=True),
        FunctionSpec("first", Rule.ITEM),
        FunctionSpec("last", Rule.ITEM),
        FunctionSpec("tail", Rule.INPUT),
        FunctionSpec("skip", Rule.INPUT, (_integer,)),
        FunctionSpec("take", Rule.INPUT, (_integer,)),
        FunctionSpec("intersect", Rule.INPUT, (_any,)),
        FunctionSpec("exclude", Rule.INPUT, (_any,)),
        FunctionSpec("union", Rule.UNION, (_any,)),
        FunctionSpec("combine", Rule.UNION, (_any,)),
        FunctionSpec("sort", Rule.INPUT, (_sort_key,), optional=1, repeats=True),
        FunctionSpec("children", UNKNOWN),
        FunctionSpec("descendants", UNKNOWN),
        FunctionSpec(
            "iif", Rule.ALTERNATIVES, (_boolean, _per_item, _per_item), optional=1, contextual=False
        ),
        FunctionSpec("coalesce", Rule.ALTERNATIVES, (_any,), repeats=True, contextual=False),
        FunctionSpec("aggregate", Rule.FOLD, (_per_item, _any), optional=1),
        FunctionSpec("trace", Rule.INPUT, (_string, _per_item), optional=1),
        FunctionSpec("defineVariable", Rule.INPUT, (_string, _per_item), optional=1, contextual=False),
        FunctionSpec("type", ResultType(None, many=False), each=True),
    ]


def _conversions() -> list[FunctionSpec]:
    specs = []
    for name in ("Boolean", "Integer", "Long", "Decimal", "Date", "DateTime", "Time", "String", "Quantity"):
        unit = (_string,) if name == "Quantity" else ()
        specs.append(FunctionSpec(f"to{name}", one_of(f"System.{name}"), unit, len(unit), singleton=True))
        specs.append(FunctionSpec(f"convertsTo{name}", BOOLEAN, unit, len(unit), singleton=True))
    return specs


def _strings() -> list[FunctionSpec]:
    strings = ResultType(STRING.types, many=True)
    table: list[tuple[str, ResultType, tuple[Argument, ...], int]] = [
        ("indexOf", INTEGER, (_string,), 0),
        ("lastIndexOf", INTEGER, (_string,), 0),
        ("substring", STRING, (_integer, _integer), 1),
        ("startsWith", BOOLEAN, (_string,), 0),
        ("endsWith", BOOLEAN, (_string,), 0),
        ("contains", BOOLEAN, (_string,), 0),
        ("upper", STRING, (), 0),
        ("lower", STRING, (), 0),
        ("trim", STRING, (), 0),
        ("replace", STRING, (_string, _string), 0),
        ("matches", BOOLEAN, (_string, _string), 1),
        ("matchesFull", BOOLEAN, (_string, _string), 1),
        ("replaceMatches", STRING, (_string, _string, _string), 1),
        ("length", INTEGER, (), 0),
        ("toChars", strings, (), 0),
        ("split", strings, (_string,), 0),
        ("encode", STRING, (_string,), 0),
        ("decode", STRING, (_string,), 0),
        ("escape", STRING, (_string,), 0),
        ("unescape", STRING, (_string,), 0),
    ]
    return [
        FunctionSpec("join", STRING, (_string,), optional=1, accepts=STRINGS),
        *(
            FunctionSpec(name, result, arguments, optional, accepts=STRINGS, singleton=True)
            for name, result, arguments, optional in table
        ),
    ]


def _numbers() -> list[FunctionSpec]:
    table: list[tuple[str, ResultType | Rule, tuple[Argument, ...], int]] = [
        ("abs", Rule.SYSTEM, (), 0),
        ("ceiling", INTEGER, (), 0),
        ("floor", INTEGER, (), 0),
        ("truncate", INTEGER, (), 0),
        ("round", Rule.DECIMAL, (_integer,), 1),
        ("exp", DECIMAL, (), 0),
        ("ln", DECIMAL, (), 0),
        ("log", DECIMAL, (_number,), 0),
        ("power", one_of("System.Integer", "System.Decimal"), (_number,), 0),
        ("sqrt", DECIMAL, (), 0),
        ("comparable", BOOLEAN, (_quantity,), 0),
    ]
    return [
        *(
            FunctionSpec(name, result, arguments, optional, accepts=QUANTITIES, singleton=True)
            for name, result, arguments, optional in table
        ),
        FunctionSpec("lowBoundary", Rule.DECIMAL, (_integer,), 1, accepts=BOUNDED, singleton=True),
        FunctionSpec("highBoundary", Rule.DECIMAL, (_integer,), 1, accepts=BOUNDED, singleton=True),
        FunctionSpec("precision", INTEGER, accepts=BOUNDED, singleton=True),
        FunctionSpec("sum", Rule.SYSTEM, accepts=QUANTITIES),
        FunctionSpec("avg", Rule.DECIMAL, accepts=QUANTITIES),
        FunctionSpec("min", Rule.SYSTEM, accepts=BOUNDED | STRINGS),
        FunctionSpec("max", Rule.SYSTEM, accepts=BOUNDED | STRINGS),
    ]


def _dates() -> list[FunctionSpec]:
    parts = [
        *((name, INTEGER, DATES) for name in ("yearOf", "monthOf", "dayOf")),
        *((name, INTEGER, TIMES) for name in ("hourOf", "minuteOf", "secondOf", "millisecondOf")),
        ("timezoneOffsetOf", DECIMAL, frozenset(("DateTime",))),
        ("dateOf", one_of("System.Date"), DATES),
        ("timeOf", one_of("System.Time"), frozenset(("DateTime",))),
    ]
    return [
        FunctionSpec("now", one_of("System.DateTime"), contextual=False),
        FunctionSpec("today", one_of("System.Date"), contextual=False),
        FunctionSpec("timeOfDay", one_of("System.Time"), contextual=False),
        *(FunctionSpec(name, result, accepts=accepts, singleton=True) for name, result, accepts in parts),
    ]


def _fhir() -> list[FunctionSpec]:
    element_definition = ResultType(frozenset(("ElementDefinition",)), many=False)
    return [
        FunctionSpec("extension", ResultType(frozenset(("Extension",)), many=True), (_string,)),
        FunctionSpec("getValue", Rule.SYSTEM, singleton=True),
        FunctionSpec("resolve", one_of("Resource"), accepts=frozenset(("Reference", "String")), each=True),
        FunctionSpec("elementDefinition", element_definition, each=True),
        FunctionSpec("slice", Rule.INPUT, (_string, _string)),
        FunctionSpec("checkModifiers", Rule.INPUT, (_string,), repeats=True),
        FunctionSpec("conformsTo", BOOLEAN, (_string,), singleton=True),
        FunctionSpec("memberOf", BOOLEAN, (_string,), singleton=True),
        FunctionSpec("subsumes", BOOLEAN, (_any,), singleton=True),
        FunctionSpec("subsumedBy", BOOLEAN, (_any,), singleton=True),
        FunctionSpec("htmlChecks", BOOLEAN, accepts=STRINGS, singleton=True),
        FunctionSpec("getResourceKey", STRING, each=True),
        FunctionSpec(
            "getReferenceKey", STRING, (_type,), optional=1, accepts=frozenset(("Reference",)), each=True
        ),
    ]


FUNCTIONS: dict[str, FunctionSpec] = {
    spec.name: spec
    for specs in (_existence(), _collections(), _conversions(), _strings(), _numbers(), _dates(), _fhir())
    for spec in specs
}
"""Every function by its name."""
