"""The type check of operators, and of type tests in both their forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhirpath_otel.evaluator import operators, syntax
from fhirpath_otel.evaluator.result_types import (
    BOOLEAN,
    EMPTY,
    STRING,
    SYSTEM,
    SYSTEM_NAMES,
    ResultType,
    converted,
    describe,
    system_types,
    union,
)
from fhirpath_otel.evaluator.type_names import NAMESPACES, did_you_mean, is_mistake, named_types, narrow

if TYPE_CHECKING:
    from fhirpath_otel.errors import ExpressionTypeError
    from fhirpath_otel.evaluator.checker import Checker

_ON_ANYTHING = operators.LOGIC | operators.EQUALITY | operators.MEMBERSHIP
_SIGNED = frozenset(SYSTEM + name for name in (*operators.NUMBERS, "Quantity"))
_TEMPORALS = frozenset(SYSTEM + name for name in operators.TEMPORALS)


def sign(checker: Checker, node: syntax.Sign, this: ResultType) -> ResultType:
    """`-operand`: of numbers and quantities."""
    operand = checker.check(node.operand, this)
    if not operand.types:
        return ResultType(operand.types, many=False)
    types = converted(operand.types) & _SIGNED
    if not types:
        message = f"'{node.operator}' is not defined for {describe(operand.types)}"
        hint = f"a sign applies last; put it in parentheses, as in ({node.operator}1).abs()"
        raise checker.error(message, node.start, node.start + 1, hint)
    return ResultType(types, many=False)


def operation(checker: Checker, node: syntax.Operation, this: ResultType) -> ResultType:
    """Operands joined by one operator; equality, membership and logic take any."""
    operands = node.operands
    if node.operator == "|":
        return union([checker.check(operand, this) for operand in operands])
    left = checker.check(operands[0], this)
    if node.operator in _ON_ANYTHING:
        for operand in operands[1:]:
            checker.check(operand, this)
        return BOOLEAN
    for operand in operands[1:]:
        right = checker.check(operand, this)
        if node.operator in operators.INEQUALITY:
            left = _compare(checker, node, left, right)
        else:
            left = _calculate(checker, node, left, right)
            if isinstance(operand, syntax.QuantityLiteral) and left.types and left.types <= _TEMPORALS:
                _require_addable(checker, operand)
    return left


def _compare(checker: Checker, node: syntax.Operation, left: ResultType, right: ResultType) -> ResultType:
    if left.types and right.types and not operators.comparable(left.types, right.types):
        raise _operator_error(checker, node, left.types, right.types)
    return BOOLEAN


def _calculate(checker: Checker, node: syntax.Operation, left: ResultType, right: ResultType) -> ResultType:
    if left.types and right.types:
        types = operators.arithmetic(node.operator, left.types, right.types)
        if not types:
            raise _operator_error(checker, node, left.types, right.types)
        return ResultType(types, many=False)
    if node.operator == "&":
        return STRING
    return EMPTY if frozenset() in {left.types, right.types} else ResultType(None, many=False)


def _operator_error(
    checker: Checker, node: syntax.Operation, left: frozenset[str], right: frozenset[str]
) -> ExpressionTypeError:
    operator, place = node.operator, node.operator_start
    seen = system_types(left | right)
    hint = None
    if not seen.isdisjoint(operators.TEMPORALS):
        if "String" in seen and operator != "&":
            hint = "write dates as @2024-01-31"
        elif not seen.isdisjoint(operators.NUMBERS):
            hint = "use a quantity, such as 7 days"
    if hint is None and operator in {"+", "&"} and "String" in seen and seen <= SYSTEM_NAMES:
        hint = "convert with toString()"
    message = f"'{operator}' is not defined for {describe(left)} and {describe(right)}"
    return checker.error(message, place, place + len(operator), hint)


def _require_addable(checker: Checker, literal: syntax.QuantityLiteral) -> None:
    if not literal.calendar and literal.unit not in operators.ADDABLE_UNITS:
        message = f"the unit '{literal.unit}' cannot be added to a date or time"
        hint = "use a calendar duration, such as 1 month"
        raise checker.error(message, literal.start, literal.end, hint)


def type_operation(checker: Checker, node: syntax.TypeOperation, this: ResultType) -> ResultType:
    """`operand is type` and `operand as type`."""
    operand = checker.check(node.operand, this)
    return type_test(checker, node.operator, operand, node.type_specifier)


def type_test(
    checker: Checker, operator: str, items: ResultType, specifier: syntax.TypeSpecifier
) -> ResultType:
    """The result of `is`, `as` or `ofType`, as an operator or as a function."""
    types = narrow(checker.model, items.types, require_type(checker, specifier))
    if types is not None and not types and items.types and is_mistake(checker.model, operator, items.types):
        given, place = describe(items.types), (specifier.start, specifier.end)
        if len(items.types) == 1:
            raise checker.error(f"{given} is never {specifier.name}", *place)
        raise checker.error(f"this is never {specifier.name}", *place, f"it can be {given}")
    return BOOLEAN if operator == "is" else ResultType(types, items.many and operator == "ofType")


def require_type(checker: Checker, specifier: syntax.TypeSpecifier) -> tuple[str, ...]:
    """The types that a name can mean. Raises ExpressionTypeError for a name that no type has."""
    namespace, name, place = specifier.namespace, specifier.name, (specifier.start, specifier.end)
    if namespace not in {None, *NAMESPACES}:
        raise checker.error(f"unknown namespace '{namespace}'", *place, "types are in FHIR or in System")
    named = named_types(checker.model, namespace, name)
    if named is None:
        hint = did_you_mean(name, SYSTEM_NAMES.union(checker.model.type_names()))
        raise checker.error(f"unknown type '{name}'", *place, hint)
    return named
