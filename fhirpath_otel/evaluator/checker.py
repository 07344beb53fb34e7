"""The walk of the type check: what all rules share, and the table of the rule for each kind of node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fhirpath_otel.errors import ExpressionTypeError
from fhirpath_otel.evaluator import call_rules, operator_rules, path_rules, syntax
from fhirpath_otel.evaluator.model import Model
from fhirpath_otel.evaluator.result_types import (
    BOOLEAN,
    EMPTY,
    STRING,
    SYSTEM_NAMES,
    ResultType,
    describe,
    one_of,
    system_types,
)

_LITERALS = {name: one_of(f"System.{name}") for name in SYSTEM_NAMES}
_UNORDERED = frozenset(("children", "descendants"))


class Checker:
    """One pass over one tree. In all rules, `this` is what `$this` and a leading name stand for."""

    __slots__ = (
        "defined",
        "expression",
        "model",
        "named_by_caller",
        "open_closures",
        "resource_type",
        "root",
        "types",
    )

    def __init__(
        self, expression: str, resource_type: str | None, model: Model, *, named_by_caller: bool
    ) -> None:
        self.expression = expression
        self.resource_type = resource_type
        self.model = model
        self.named_by_caller = named_by_caller
        self.root = one_of(resource_type) if resource_type else ResultType(None, many=False)
        self.types: dict[syntax.Node, ResultType] = {}
        self.open_closures = 0
        self.defined: set[str] = set()  # by defineVariable(), as far as the walk has come

    def check(self, node: syntax.Node, this: ResultType) -> ResultType:
        """The types of a node's result, noted in `types` too. Raises ExpressionTypeError."""
        result = _RULES[type(node)](self, node, this)
        self.types[node] = result
        return result

    def error(self, message: str, start: int, end: int, hint: str | None = None) -> ExpressionTypeError:
        """The error to raise about one place in the text."""
        return ExpressionTypeError(message, self.expression, start, end, hint)

    def context(self, node: syntax.Node, this: ResultType) -> ResultType:
        """`this`, unless that is a resource whose type nobody named."""
        if this is self.root and self.resource_type is None:
            hint = "begin the path with one, as in 'Patient.name', or set the resource type"
            raise self.error("no resource type to start from", node.start, node.end, hint)
        return this

    def require(self, accepts: frozenset[str], given: ResultType, what: str, start: int, end: int) -> None:
        """Refuse a collection in which no item can be of a type in `accepts` (as operators see types)."""
        if not given.types:
            return
        seen = system_types(given.types)
        if accepts.isdisjoint(seen):
            hint = "convert with toString()" if "String" in accepts and seen <= SYSTEM_NAMES else None
            message = f"{what} needs {describe(accepts)}, not {describe(given.types)}"
            raise self.error(message, start, end, hint)

    def require_order(self, input_: syntax.Node, what: str, start: int, end: int) -> None:
        """Refuse a position in a collection whose order is undefined."""
        if isinstance(input_, syntax.Function) and input_.name in _UNORDERED:
            message = f"{what} needs an order, and {input_.name}() has none"
            raise self.error(message, start, end, "filter with where() instead")


def _typed_literal(
    _checker: Checker, node: syntax.NumberLiteral | syntax.TemporalLiteral, _this: ResultType
) -> ResultType:
    return _LITERALS[node.type_name]


_RULES: dict[type[syntax.Node], Callable[[Checker, Any, ResultType], ResultType]] = {
    syntax.EmptyLiteral: lambda *_: EMPTY,
    syntax.BooleanLiteral: lambda *_: BOOLEAN,
    syntax.StringLiteral: lambda *_: STRING,
    syntax.QuantityLiteral: lambda *_: _LITERALS["Quantity"],
    syntax.NumberLiteral: _typed_literal,
    syntax.TemporalLiteral: _typed_literal,
    syntax.Variable: path_rules.variable,
    syntax.ExternalConstant: path_rules.external_constant,
    syntax.Member: path_rules.member,
    syntax.Indexer: path_rules.indexer,
    syntax.Sign: operator_rules.sign,
    syntax.Operation: operator_rules.operation,
    syntax.TypeOperation: operator_rules.type_operation,
    syntax.Function: call_rules.call,
}
