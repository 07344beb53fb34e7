"""The syntax tree of a FHIRPath expression (https://hl7.org/fhirpath/N1/grammar.html).

Every node knows its place in the text: `start` and `end` are 0-based offsets of characters, half open; a node in
parentheses spans them. Nodes compare and hash by identity, so that the type checker can keep facts beside them.
A run of one left-associative operator is one flat `Operation` (`a or b or c` has three operands): a list of 5,000
codes is then 5,000 operands, not 5,000 levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    start: int
    end: int


@dataclass(frozen=True, eq=False, slots=True)
class EmptyLiteral(Node):
    """`{}`"""


@dataclass(frozen=True, eq=False, slots=True)
class BooleanLiteral(Node):
    value: bool


@dataclass(frozen=True, eq=False, slots=True)
class StringLiteral(Node):
    """`value` is unescaped."""

    value: str


@dataclass(frozen=True, eq=False, slots=True)
class NumberLiteral(Node):
    """`text` as written, without a trailing `L`; `type_name` is Integer, Decimal or Long."""

    text: str
    type_name: str


@dataclass(frozen=True, eq=False, slots=True)
class TemporalLiteral(Node):
    """`text` as written, without `@` (and without `T` of a time); `type_name` is Date, DateTime or Time."""

    text: str
    type_name: str


@dataclass(frozen=True, eq=False, slots=True)
class QuantityLiteral(Node):
    """`4 days` (calendar) or `4 'mg'` (UCUM); `number` as written."""

    number: str
    unit: str
    calendar: bool


@dataclass(frozen=True, eq=False, slots=True)
class ExternalConstant(Node):
    """`%name`, %`name` or %'name'; `delimited` when not a plain identifier."""

    name: str
    delimited: bool


@dataclass(frozen=True, eq=False, slots=True)
class Variable(Node):
    """`$this`, `$index` or `$total`; `name` includes the dollar sign."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Member(Node):
    """`input.name`, or `name` alone (then `input` is None and the context is meant)."""

    input: Node | None
    name: str
    name_start: int
    delimited: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Function(Node):
    """`input.name(arguments)`, or `name(arguments)` alone (then `input` is None and the context is meant)."""

    input: Node | None
    name: str
    name_start: int
    arguments: tuple[Node, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Indexer(Node):
    """`input[index]`"""

    input: Node
    index: Node


@dataclass(frozen=True, eq=False, slots=True)
class Sign(Node):
    """`+operand` or `-operand`"""

    operator: str
    operand: Node


@dataclass(frozen=True, eq=False, slots=True)
class Operation(Node):
    """Two or more operands joined by one operator, evaluated from the left."""

    operator: str
    operands: tuple[Node, ...]
    operator_start: int


@dataclass(frozen=True, eq=False, slots=True)
class TypeSpecifier(Node):
    """`Quantity`, `FHIR.Quantity`, `System.String`; `namespace` is None where not written."""

    namespace: str | None
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class TypeOperation(Node):
    """`operand is type` or `operand as type`; the functions of these names are `Function` nodes."""

    operator: str
    operand: Node
    type_specifier: TypeSpecifier


def children(node: Node) -> tuple[Node, ...]:
    """The direct sub-expressions of a node, in the order of the text."""
    if isinstance(node, Member):
        return () if node.input is None else (node.input,)
    if isinstance(node, Function):
        return node.arguments if node.input is None else (node.input, *node.arguments)
    if isinstance(node, Indexer):
        return (node.input, node.index)
    if isinstance(node, Sign):
        return (node.operand,)
    if isinstance(node, Operation):
        return node.operands
    if isinstance(node, TypeOperation):
        return (node.operand,)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, without recursion, parents first."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(children(current)))
