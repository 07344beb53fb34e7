"""The plan: a small frozen tree of collection operators, independent of any database.

`lower` turns a type-checked expression into operators over the resource at hand, each with its place in the text and
its FHIR types. Types are resolved here, so that a printer needs no model: `value.ofType(Quantity)` is a navigation
that has one alternative left. What SQL cannot say yet raises `NotExpressible`, which names the operator that prevented
it; the pipeline then evaluates in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeAlias

Value: TypeAlias = "str | bool | int | Decimal"


class NotExpressible(Exception):
    """SQL cannot express `operator` at `start`:`end`; `reason` says why, in one sentence without any value."""

    def __init__(self, operator: str, reason: str, start: int, end: int) -> None:
        super().__init__(f"{operator} at {start}: {reason}")
        self.operator = operator
        self.reason = reason
        self.start = start
        self.end = end


class SeveralItems(Exception):
    """A collection at `start`:`end` had several items where the specification allows one."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(f"several items at {start}")
        self.start = start
        self.end = end


@dataclass(frozen=True, slots=True)
class Operator:
    """`types` are FHIR type names or `System.` names; `many` tells whether there can be several items."""

    start: int
    end: int
    types: tuple[str, ...]
    many: bool


@dataclass(frozen=True, slots=True)
class Resource(Operator):
    """The resource that is evaluated."""


@dataclass(frozen=True, slots=True)
class Item(Operator):
    """`$this` of the criterion at nesting `level` (1 is the outermost)."""

    level: int


@dataclass(frozen=True, slots=True)
class Index(Operator):
    """`$index` of the criterion at nesting `level`."""

    level: int


@dataclass(frozen=True, slots=True)
class Nothing(Operator):
    """The empty collection."""


@dataclass(frozen=True, slots=True)
class Constant(Operator):
    value: Value


@dataclass(frozen=True, slots=True)
class Constants(Operator):
    """A union of literals of one type."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Navigate(Operator):
    """One step to a child element; `repeats` tells whether this step can yield several items from one.

    `alternatives` are (type, JSON key) pairs: one for a plain element, several for a choice type of which at most one
    is present.
    """

    input: Operator
    name: str
    alternatives: tuple[tuple[str, str], ...]
    repeats: bool


@dataclass(frozen=True, slots=True)
class Filter(Operator):
    """`where(criterion)`; the criterion sees `Item(level)`."""

    input: Operator
    criterion: Operator
    level: int


@dataclass(frozen=True, slots=True)
class Exists(Operator):
    input: Operator


@dataclass(frozen=True, slots=True)
class All(Operator):
    input: Operator
    criterion: Operator
    level: int


@dataclass(frozen=True, slots=True)
class Count(Operator):
    input: Operator


@dataclass(frozen=True, slots=True)
class Pick(Operator):
    """`first()` is position 0, `last()` is -1, `[n]` is n."""

    input: Operator
    position: int


@dataclass(frozen=True, slots=True)
class Not(Operator):
    input: Operator


@dataclass(frozen=True, slots=True)
class Logic(Operator):
    """`and`, `or`, `xor`, `implies` of three-valued logic (specification, Boolean logic)."""

    operator: str
    operands: tuple[Operator, ...]


@dataclass(frozen=True, slots=True)
class Compare(Operator):
    """`=`, `!=`, `<`, `<=`, `>`, `>=`; `family` is String, Boolean, Number or Date."""

    operator: str
    left: Operator
    right: Operator
    family: str


@dataclass(frozen=True, slots=True)
class Membership(Operator):
    """`item in collection`; `family` as in `Compare`."""

    item: Operator
    collection: Operator
    family: str


@dataclass(frozen=True, slots=True)
class Arithmetic(Operator):
    """`+`, `-`, `*`, `/`, `div`, `mod` on numbers."""

    operator: str
    left: Operator
    right: Operator


@dataclass(frozen=True, slots=True)
class Conditional(Operator):
    """`iif(criterion, then, otherwise)`"""

    criterion: Operator
    then: Operator
    otherwise: Operator


@dataclass(frozen=True, slots=True)
class TypeTest(Operator):
    """`input is type`; `matching` are the input's types for which it is true."""

    input: Operator
    matching: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a printer needs: `root` is evaluated once for each resource of `resource_type`."""

    resource_type: str
    root: Operator


def inputs(operator: Operator) -> tuple[Operator, ...]:
    """The operators directly below, criteria included."""
    found: list[Operator] = []
    for name in operator.__dataclass_fields__:
        value = getattr(operator, name)
        if isinstance(value, Operator):
            found.append(value)
        elif name == "operands":
            found.extend(value)
    return tuple(found)


def mentions(operator: Operator, kind: type[Operator], level: int | None = None) -> bool:
    """Whether an operator of this kind (at this criterion level, if given) occurs in the tree."""
    if isinstance(operator, kind) and (level is None or getattr(operator, "level", None) == level):
        return True
    return any(mentions(below, kind, level) for below in inputs(operator))


def narrow(operator: Operator, keep: frozenset[str]) -> Operator:
    """The items of a navigation that have one of the types in `keep`."""
    if isinstance(operator, Navigate):
        left = tuple(pair for pair in operator.alternatives if pair[0] in keep)
        if left:
            return replace(operator, alternatives=left, types=tuple(kind for kind, _ in left))
    return Nothing(operator.start, operator.end, (), False)
