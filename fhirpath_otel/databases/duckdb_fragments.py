"""The parts of a DuckDB statement: an SQL expression for the collection of each operator of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fhirpath_otel.databases.duckdb_numbers import FAST_DIGITS, Digits, decimal_type, digits_of
from fhirpath_otel.databases.duckdb_tables import LoadedType
from fhirpath_otel.databases.structure import Structure
from fhirpath_otel.evaluator import plan
from fhirpath_otel.evaluator.plan import NotExpressible, Operator, Plan, Value

Path = tuple[str, ...]

ERROR_MARK = "fhirpath-otel:several-items"
LONGEST_REPEATED = 60  # characters of an expression that a statement repeats, rather than naming it


@dataclass(frozen=True, slots=True)
class Fragment:
    """An SQL expression and what it stands for.

    `sql` binds as tightly as a name, or is a CASE; it is None where the data has no such element.
    `path` are the JSON keys from the resource, `digits` those of a computed number. `companion` is the `_element`
    beside a primitive (its id and extensions), where the data has one.
    A choice of types has `alternatives` instead, (type, fragment) pairs.
    """

    sql: str | None
    structure: Structure | None = None
    many: bool = False
    path: Path = ()
    companion: Fragment | None = None
    digits: Digits | None = None
    alternatives: tuple[tuple[str, Fragment], ...] = ()

    @property
    def raises(self) -> bool:
        """Whether evaluating it can raise."""
        return self.sql is not None and ERROR_MARK in self.sql


ABSENT = Fragment(None)


def quoted(identifier: str) -> str:
    """The identifier as SQL spells it."""
    return '"' + identifier.replace('"', '""') + '"'


def element_of(structure: Structure | None) -> Structure | None:
    """The structure of one item of a list; of what is no list, itself."""
    return structure[0] if isinstance(structure, list) else structure


def in_order(conditions: Sequence[Fragment]) -> str:
    """A conjunction. DuckDB may test conditions in any order, so one that can raise keeps its place among them.

    It takes a conjunction inside of a condition apart, too, but not one that is asked whether it is true.
    """
    *before, last = conditions
    if not before:
        return f"({last.sql} IS TRUE)" if last.raises else str(last.sql)
    if any(one.raises for one in conditions):
        return f"CASE WHEN {in_order(before)} THEN {last.sql} ELSE FALSE END"
    return f"{in_order(before)} AND {last.sql}"


class FragmentPrinter:
    """What every operator's printing shares; `printers` name the method for each operator."""

    printers: ClassVar[dict[type[Operator], str]] = {}

    def __init__(self, planned: Plan, loaded: LoadedType) -> None:
        self.plan = planned
        self.resource = Fragment("r", loaded.structure)
        self.dropped = frozenset(loaded.dropped)
        self.widths = loaded.widths
        self.parameters: list[Value] = []
        self.items: dict[int, Fragment] = {}
        self.indices: dict[int, str] = {}
        self.named = 0

    def bind(self, value: Value) -> str:
        self.parameters.append(value)
        return f"${len(self.parameters)}"

    def once(self, sql: str, body: Callable[[str], str]) -> str:
        """`body` uses the expression several times: a long one gets a name, so that no statement explodes."""
        if len(sql) <= LONGEST_REPEATED:
            return body(sql)
        self.named += 1
        name = f"n{self.named}"
        return f"(list_transform([{sql}], lambda {name}: {body(name)}))[1]"

    def once_each(self, left: Fragment, right: Fragment, body: Callable[[str, str], str]) -> str:
        """As `once`, for two expressions that the data has."""
        return self.once(str(left.sql), lambda one: self.once(str(right.sql), lambda other: body(one, other)))

    def value(self, operator: Operator) -> Fragment:
        """As `fragment`, a choice of types as one value."""
        return self.merged(self.fragment(operator), operator)

    def fragment(self, operator: Operator) -> Fragment:
        """An expression for the operator's collection: a list where `many`, else a value that may be NULL."""
        printed: Fragment = getattr(self, self.printers[type(operator)])(operator)
        return printed

    def single(self, operator: Operator) -> Fragment:
        """The one item of a collection; several are an error (specification, singleton evaluation)."""
        return self.only(self.value(operator), operator)

    def merged(self, item: Fragment, operator: Operator) -> Fragment:
        """A choice of types as one value: at most one of its columns has it."""
        present = [one for _, one in item.alternatives if one.sql is not None]
        if len(present) < 2:
            return present[0] if present else item
        if any(one.many or one.structure != present[0].structure for one in present):
            raise NotExpressible(
                "value", "a choice of types is not in SQL here", operator.start, operator.end
            )
        return Fragment(f"coalesce({', '.join(str(one.sql) for one in present)})", present[0].structure)

    def only(self, item: Fragment, operator: Operator) -> Fragment:
        """The one item of the operator's collection, which is printed already."""
        if not item.many or item.sql is None:
            return item
        mark = f"error('{ERROR_MARK}:{operator.start}:{operator.end}')"
        sql = self.once(
            item.sql, lambda items: f"(CASE WHEN len({items}) > 1 THEN {mark} ELSE ({items})[1] END)"
        )
        return Fragment(sql, element_of(item.structure), path=item.path, digits=item.digits)

    def with_item(self, level: int, item: Fragment, index: str, criterion: Operator) -> Fragment:
        """The criterion's test of one item."""
        self.items[level], self.indices[level] = item, index
        test = self.single(criterion)
        return test if test.sql is not None else Fragment("NULL")

    def presence(self, item: Fragment) -> Fragment:
        """Whether there is an item; a primitive that has only extensions is one."""
        if item.alternatives:
            tests = [str(self.presence(one).sql) for _, one in item.alternatives]
            return Fragment("(" + " OR ".join(tests) + ")", "BOOLEAN")
        if item.many:
            return Fragment(f"(coalesce(len({item.sql}), 0) > 0)" if item.sql else "FALSE", "BOOLEAN")
        tests = [
            f"({one.sql} IS NOT NULL)" for one in (item, item.companion or ABSENT) if one.sql is not None
        ]
        sql = tests[0] if len(tests) == 1 else f"({' OR '.join(tests)})" if tests else "FALSE"
        return Fragment(sql, "BOOLEAN")

    def nothing(self, operator: plan.Nothing) -> Fragment:
        return ABSENT

    def root(self, operator: plan.Resource) -> Fragment:
        return self.resource

    def item(self, operator: plan.Item) -> Fragment:
        return self.items[operator.level]

    def index(self, operator: plan.Index) -> Fragment:
        return Fragment(self.indices[operator.level], "INTEGER")

    def constant(self, operator: plan.Constant) -> Fragment:
        return self.literal(operator.value, operator)

    def literal(self, value: Value, operator: Operator) -> Fragment:
        parameter = self.bind(value)
        if isinstance(value, bool):
            return Fragment(parameter, "BOOLEAN")
        if isinstance(value, str):
            return Fragment(parameter, "VARCHAR")
        digits = digits_of(value)
        if isinstance(value, int) and digits[0] <= FAST_DIGITS:
            return Fragment(f"CAST({parameter} AS BIGINT)", "INTEGER", digits=digits)
        return Fragment(f"CAST({parameter} AS {decimal_type(*digits, operator)})", "DECIMAL", digits=digits)

    def constants(self, operator: plan.Constants) -> Fragment:
        printed = [self.literal(value, operator) for value in operator.values]
        widths = [one.digits for one in printed if one.digits is not None]
        if not widths:
            listed = ", ".join(str(one.sql) for one in printed)
            return Fragment(f"[{listed}]", [printed[0].structure or "VARCHAR"], many=True)
        digits = max(whole for whole, _ in widths), max(fraction for _, fraction in widths)
        kind = decimal_type(*digits, operator)
        listed = ", ".join(f"CAST({one.sql} AS {kind})" for one in printed)
        return Fragment(f"[{listed}]", ["DECIMAL"], many=True, digits=digits)
