"""The static type check: what an expression gives over a resource type, or why it cannot be meant.

Sound in one direction: an expression is refused only where no resource could make sense of it. What is unknown
(`descendants()`, resources inside resources, variables of the caller) is never an error. Cardinality is an upper
bound, so that several items where one is required are left to evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fhirpath_otel.errors import UsageError
from fhirpath_otel.evaluator import syntax
from fhirpath_otel.evaluator.checker import Checker
from fhirpath_otel.evaluator.functions import FUNCTIONS, Evaluated
from fhirpath_otel.evaluator.model import Model
from fhirpath_otel.evaluator.result_types import ResultType
from fhirpath_otel.evaluator.type_names import did_you_mean

__all__ = ["ResultType", "TypedExpression", "check", "root_type"]


@dataclass(frozen=True, slots=True)
class TypedExpression:
    """An expression that passed. `types` has every node of the tree except names of types."""

    tree: syntax.Node
    expression: str
    resource_type: str | None
    types: Mapping[syntax.Node, ResultType]
    result: ResultType


def check(
    tree: syntax.Node, expression_text: str, resource_type: str | None, model: Model
) -> TypedExpression:
    """The types of an expression that is evaluated over resources of one type.

    Without `resource_type` it is read from the text (`root_type`); an expression of literals alone needs none, and
    then has None. Raises ExpressionTypeError with the place in the text, and UsageError for a resource type that R4
    does not have.
    """
    if resource_type is not None and model.kind(resource_type) != "resource":
        hint = did_you_mean(resource_type, model.resource_types)
        raise UsageError(f"unknown resource type '{resource_type}'" + (f"; {hint}" if hint else ""))
    root = resource_type or root_type(tree, model)
    checker = Checker(expression_text, root, model, named_by_caller=resource_type is not None)
    result = checker.check(tree, checker.root)
    return TypedExpression(tree, expression_text, root, checker.types, result)


def root_type(tree: syntax.Node, model: Model) -> str | None:
    """The resource type that the paths of the text start at: `Patient` of `Patient.name`; None without one.

    If they start at several, the first in the text; `check` then refuses the others.
    """
    for node in _in_root_context(tree):
        if isinstance(node, syntax.Member) and node.input is None and node.name in model.resource_types:
            return node.name
    return None


def _in_root_context(tree: syntax.Node) -> Iterator[syntax.Node]:
    """The nodes whose leading names belong to the resource: not those in `where(…)` and the like after a path."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, syntax.Function):
            stack.extend(reversed(syntax.children(node)))
            continue
        spec = FUNCTIONS.get(node.name)
        if spec and spec.arguments:
            for position in range(len(node.arguments) - 1, -1, -1):
                evaluated = spec.argument(position).evaluated
                in_root = evaluated is Evaluated.ONCE or node.input is None
                if in_root and evaluated is not Evaluated.TYPE:
                    stack.append(node.arguments[position])
        if node.input is not None:
            stack.append(node.input)
