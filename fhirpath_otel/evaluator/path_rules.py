"""The type check of paths: names, variables and indexers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhirpath_otel.evaluator.functions import FUNCTIONS
from fhirpath_otel.evaluator.result_types import INTEGER, STRING, UNKNOWN, ResultType, describe
from fhirpath_otel.evaluator.type_names import did_you_mean, narrow

if TYPE_CHECKING:
    from fhirpath_otel.errors import ExpressionTypeError
    from fhirpath_otel.evaluator import syntax
    from fhirpath_otel.evaluator.checker import Checker

_QUANTITY_ELEMENTS = {"value": "System.Decimal", "unit": "System.String"}
_RESOURCES = frozenset(("context", "resource", "rootResource"))
_STRINGS = frozenset(("ucum", "sct", "loinc"))
_INTEGERS = frozenset(("Integer", "Long"))


def variable(checker: Checker, node: syntax.Variable, this: ResultType) -> ResultType:
    """`$this`, `$index`; `$total` is unknown."""
    if node.name == "$this":
        return checker.context(node, this)
    return INTEGER if node.name == "$index" else UNKNOWN


def external_constant(checker: Checker, node: syntax.ExternalConstant, _this: ResultType) -> ResultType:
    """The constants that FHIR defines, and what defineVariable() does.

    https://hl7.org/fhir/R4/fhirpath.html#variables
    """
    if node.name in _RESOURCES:
        return checker.context(node, checker.root)
    if node.name in _STRINGS or node.name.startswith(("vs-", "ext-")):
        return STRING
    if node.name not in checker.defined:
        known = sorted(_RESOURCES | _STRINGS | checker.defined)
        hint = did_you_mean(node.name, known) or f"there are {', '.join(f'%{name}' for name in known)}"
        raise checker.error(f"unknown variable '%{node.name}'", node.start, node.end, hint)
    return UNKNOWN


def member(checker: Checker, node: syntax.Member, this: ResultType) -> ResultType:
    """`input.name`; a leading name is an element of the context, or the type of the context itself."""
    if node.input is not None:
        return _child(checker, node, checker.check(node.input, this))
    context = checker.context(node, this)
    if node.name[:1].isupper() and checker.model.kind(node.name) not in {None, "backbone"}:
        types = narrow(checker.model, context.types, (node.name,))
        if types:
            return ResultType(types, context.many)
        if context is checker.root:
            raise _wrong_root(checker, node)
    return _child(checker, node, context)


def _child(checker: Checker, node: syntax.Member, parent: ResultType) -> ResultType:
    if parent.types is None:
        return UNKNOWN
    model, name, many = checker.model, node.name, parent.many
    types: set[str] = set()
    for type_name in parent.types:
        element = model.element(type_name, name)
        if element is not None:
            types.update(element.types)
            many = many or element.many
        elif type_name == "System.Quantity" and name in _QUANTITY_ELEMENTS:
            types.add(_QUANTITY_ELEMENTS[name])
        elif model.is_abstract(type_name) and name in model.resource_names:
            return UNKNOWN
    if not types and parent.types:
        raise _unknown_element(checker, node, parent.types)
    return ResultType(frozenset(types), many)


def indexer(checker: Checker, node: syntax.Indexer, this: ResultType) -> ResultType:
    """`input[index]`"""
    items = checker.check(node.input, this)
    place = node.index.start, node.index.end
    checker.require_order(node.input, "an index", *place)
    checker.require(_INTEGERS, checker.check(node.index, this), "an index", *place)
    return ResultType(items.types, many=False)


def _wrong_root(checker: Checker, node: syntax.Member) -> ExpressionTypeError:
    if checker.named_by_caller or node.name not in checker.model.resource_types:
        message = f"path starts at {node.name}, but {checker.resource_type} is evaluated"
    else:
        message = f"paths start at {checker.resource_type} and at {node.name}"
    return checker.error(message, node.start, node.end, "one expression sees resources of one type")


def _unknown_element(checker: Checker, node: syntax.Member, owners: frozenset[str]) -> ExpressionTypeError:
    model, name = checker.model, node.name
    hint = None
    for choice in filter(None, (model.json_element(owner, name) for owner in owners)):
        hint = f"use {choice[0].name}.ofType({choice[1]})"
    if hint is None and name in FUNCTIONS:
        hint = f"did you mean '{name}()'?"
    elif hint is None:
        known = set().union(*(model.names(owner) for owner in owners))
        if any(model.is_abstract(owner) for owner in owners):
            known |= model.resource_names
        hint = did_you_mean(name, known)
    message = f"unknown element '{name}' on {describe(owners)}"
    end = node.name_start + len(name) + 2 * node.delimited
    return checker.error(message, node.name_start, end, hint)
