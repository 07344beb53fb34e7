"""Comparison, membership, logic and arithmetic of lowered operands, and what SQL requires of them."""

from __future__ import annotations

from fhirpath_otel.evaluator import plan, syntax
from fhirpath_otel.evaluator.operand_types import family, is_integer, is_uniform, system_types
from fhirpath_otel.evaluator.plan import NotExpressible, Operator

BOOLEAN = ("System.Boolean",)


def binary(node: syntax.Operation, left: Operator, right: Operator) -> Operator:
    """One operator over two operands, or NotExpressible."""
    operator = node.operator
    if operator == "implies":
        require_boolean(left, operator)
        require_boolean(right, operator)
        return plan.Logic(node.start, node.end, BOOLEAN, False, operator, (left, right))
    if operator in ("=", "!=", "<", "<=", ">", ">="):
        return compare(node, left, right)
    if operator == "in":
        return membership(node, left, right)
    if operator == "contains":
        return membership(node, right, left)
    if operator in ("+", "-", "*", "/", "div", "mod"):
        require_number(left, operator, node)
        require_number(right, operator, node)
        if not left.types or not right.types:
            return plan.Nothing(node.start, node.end, ("System.Decimal",), False)
        integer = operator == "div" or (operator != "/" and is_integer(left) and is_integer(right))
        kind = "System.Integer" if integer else "System.Decimal"
        return plan.Arithmetic(node.start, node.end, (kind,), False, operator, left, right)
    raise NotExpressible(operator, "this operator is not in SQL yet", node.start, node.end)


def compare(node: syntax.Operation, left: Operator, right: Operator) -> Operator:
    """`=`, `!=` and the inequalities; with an empty operand they are empty."""
    if isinstance(left, plan.Nothing) or isinstance(right, plan.Nothing):
        return plan.Nothing(node.start, node.end, BOOLEAN, False)
    shared = _shared_family(node, left, right)
    if shared == "Boolean" and node.operator not in ("=", "!="):
        raise NotExpressible(node.operator, "it orders truth values", node.start, node.end)
    return plan.Compare(node.start, node.end, BOOLEAN, False, node.operator, left, right, shared)


def membership(node: syntax.Operation, item: Operator, collection: Operator) -> Operator:
    """`item in collection`, and `collection contains item`."""
    if isinstance(item, plan.Nothing):
        return plan.Nothing(node.start, node.end, BOOLEAN, False)
    if isinstance(collection, plan.Nothing):
        return plan.Membership(node.start, node.end, BOOLEAN, False, item, collection, "String")
    shared = _shared_family(node, item, collection)
    if shared == "Date" or "System.Decimal" in system_types(collection) | system_types(item):
        reason = f"membership of {shared} values is not in SQL yet"
        raise NotExpressible(node.operator, reason, node.start, node.end)
    return plan.Membership(node.start, node.end, BOOLEAN, False, item, collection, shared)


def _shared_family(node: syntax.Operation, left: Operator, right: Operator) -> str:
    shared = family(left)
    if shared is None or shared != family(right):
        kinds = " and ".join("/".join(sorted(set(side.types))) for side in (left, right))
        raise NotExpressible(node.operator, f"{kinds} are not compared in SQL yet", node.start, node.end)
    return shared


def union(node: syntax.Operation, operands: list[Operator]) -> Operator:
    """A union of literals."""
    values: list[plan.Value] = []
    kinds = {operand.types for operand in operands}
    for operand in operands:
        if isinstance(operand, plan.Constant):
            values.append(operand.value)
        elif isinstance(operand, plan.Constants):
            values.extend(operand.values)
    if len(kinds) != 1 or not all(isinstance(o, plan.Constant | plan.Constants) for o in operands):
        raise NotExpressible("|", "only a union of literals of one type is in SQL yet", node.start, node.end)
    distinct = tuple(dict.fromkeys(values))
    return plan.Constants(node.start, node.end, kinds.pop(), True, distinct)


def require_boolean(operator: Operator, whose: str) -> None:
    """Raises NotExpressible where it is no Boolean."""
    if operator.types and family(operator) != "Boolean":
        reason = "a criterion that is not Boolean is not in SQL yet"
        raise NotExpressible(whose, reason, operator.start, operator.end)


def require_number(operator: Operator, whose: str, node: syntax.Node) -> None:
    """Raises NotExpressible where it is no number."""
    if operator.types and family(operator) != "Number":
        raise NotExpressible(whose, "only numbers are computed in SQL yet", node.start, node.end)


def require_one_type(operator: Operator, whose: str, node: syntax.Node) -> None:
    """Raises NotExpressible where its items can be of types that are stored differently."""
    if isinstance(operator, plan.Navigate) and not is_uniform(operator):
        raise NotExpressible(whose, "its input is a choice of types", node.start, node.end)
