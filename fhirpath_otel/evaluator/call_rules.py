"""The type check of function calls: the input and the arguments against the table, and the result by its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fhirpath_otel.evaluator import syntax
from fhirpath_otel.evaluator.functions import FUNCTIONS, Evaluated, FunctionSpec, Rule
from fhirpath_otel.evaluator.operator_rules import require_type, type_test
from fhirpath_otel.evaluator.result_types import UNKNOWN, ResultType, converted, union
from fhirpath_otel.evaluator.type_names import did_you_mean

if TYPE_CHECKING:
    from fhirpath_otel.errors import ExpressionTypeError
    from fhirpath_otel.evaluator.checker import Checker

_POSITIONAL = frozenset(("first", "last", "tail", "skip", "take"))
_WHOLE = frozenset(("System.Integer", "System.Long"))

# The argument of repeat() is checked anew for each widening of what it is applied to, and nested ones multiply.
_MOST_WIDENINGS = 3
_MOST_OPEN_CLOSURES = 2


def call(checker: Checker, node: syntax.Function, this: ResultType) -> ResultType:
    """The types of a call's result. Raises ExpressionTypeError."""
    spec = FUNCTIONS.get(node.name)
    if spec is None:
        raise _unknown_function(checker, node, this)
    name_end = node.name_start + len(node.name)
    if node.input is not None:
        items = checker.check(node.input, this)
        if spec.name in _POSITIONAL:
            checker.require_order(node.input, f"{spec.name}()", node.name_start, name_end)
    else:
        items = checker.context(node, this) if spec.contextual else this
    if spec.accepts is not None:
        checker.require(spec.accepts, items, f"{spec.name}()", node.name_start, name_end)
    _count_arguments(checker, node, spec)
    if spec.name == "defineVariable" and isinstance(node.arguments[0], syntax.StringLiteral):
        checker.defined.add(node.arguments[0].value)
    if spec.arguments and spec.arguments[0].evaluated is Evaluated.TYPE:
        return _type_call(checker, node, spec, items)
    if spec.result is Rule.CLOSURE:
        return _closure(checker, node.arguments[0], items)
    return _result(spec, items, _arguments(checker, node, spec, items, this))


def _unknown_function(checker: Checker, node: syntax.Function, this: ResultType) -> ExpressionTypeError:
    owner = this if node.input is None else checker.check(node.input, this)
    if any(checker.model.element(type_name, node.name) for type_name in owner.types or ()):
        hint: str | None = f"'{node.name}' is an element: leave out the parentheses"
    else:
        hint = did_you_mean(node.name, FUNCTIONS, "()")
    end = node.name_start + len(node.name)
    return checker.error(f"unknown function '{node.name}()'", node.name_start, end, hint)


def _count_arguments(checker: Checker, node: syntax.Function, spec: FunctionSpec) -> None:
    least, most = spec.min_arguments, spec.max_arguments
    count = len(node.arguments)
    if count >= least and (most is None or count <= most):
        return
    if most is None:
        takes = f"at least {least}"
    else:
        takes = " or ".join(str(number) for number in range(least, most + 1)) if most else "no"
    plural = "" if takes in {"1", "at least 1"} else "s"
    message = f"{spec.name}() takes {takes} argument{plural}, not {count}"
    raise checker.error(message, node.name_start, node.end)


def _arguments(
    checker: Checker, node: syntax.Function, spec: FunctionSpec, items: ResultType, this: ResultType
) -> list[ResultType]:
    """The results that the function's own result may depend on: all but those of criteria."""
    results = []
    item = ResultType(items.types, many=False) if items.many else items
    for position, argument in enumerate(node.arguments):
        expected = spec.argument(position)
        if expected.evaluated is Evaluated.ONCE:
            result = checker.check(argument, this)
        elif expected.evaluated is Evaluated.SORT_KEY and isinstance(argument, syntax.Sign):
            result = checker.types[argument] = checker.check(argument.operand, item)
        else:
            result = checker.check(argument, item)
        if expected.accepts is not None:
            what = f"this argument of {spec.name}()"
            checker.require(expected.accepts, result, what, argument.start, argument.end)
        if expected.evaluated is not Evaluated.CRITERION:
            results.append(result)
    return results


def _type_call(checker: Checker, node: syntax.Function, spec: FunctionSpec, items: ResultType) -> ResultType:
    """`is(…)`, `as(…)`, `ofType(…)`, and `getReferenceKey(…)` which may go without."""
    if node.arguments:
        specifier = _type_specifier(node.arguments[0])
        if specifier is None:
            message = f"{spec.name}() takes the name of a type"
            place = node.arguments[0].start, node.arguments[0].end
            raise checker.error(message, *place, "such as Quantity or FHIR.Quantity")
        if spec.name != "getReferenceKey":
            return type_test(checker, spec.name, items, specifier)
        require_type(checker, specifier)
    return _result(spec, items, [])


def _type_specifier(argument: syntax.Node) -> syntax.TypeSpecifier | None:
    """The argument read as the name of a type; None if it is none."""
    if not isinstance(argument, syntax.Member):
        return None
    namespace = argument.input
    if namespace is None:
        return syntax.TypeSpecifier(argument.start, argument.end, None, argument.name)
    if isinstance(namespace, syntax.Member) and namespace.input is None:
        return syntax.TypeSpecifier(argument.start, argument.end, namespace.name, argument.name)
    return None


def _closure(checker: Checker, body: syntax.Node, items: ResultType) -> ResultType:
    """`repeat(body)`: widens what the body is applied to until its result adds nothing to that."""
    applied = items.types if checker.open_closures < _MOST_OPEN_CLOSURES else None
    checker.open_closures += 1
    for _ in range(_MOST_WIDENINGS):
        result = checker.check(body, ResultType(applied, many=False))
        if applied is None or result.types is None:
            break
        if result.types <= applied:
            checker.open_closures -= 1
            return ResultType(result.types, many=True)
        applied |= result.types
    if applied is not None:
        checker.check(body, ResultType(None, many=False))
    checker.open_closures -= 1
    return UNKNOWN


def _result(spec: FunctionSpec, items: ResultType, results: list[ResultType]) -> ResultType:
    """The result of a call that passed, by the function's rule."""
    rule = spec.result
    if isinstance(rule, ResultType):
        return ResultType(rule.types, many=True) if spec.each and items.many else rule
    return _RULES[rule](items, results)


def _projection(items: ResultType, results: list[ResultType]) -> ResultType:
    return ResultType(results[0].types, items.many or results[0].many)


def _alternatives(_: ResultType, results: list[ResultType]) -> ResultType:
    return ResultType(union(results).types, any(result.many for result in results))


def _system(items: ResultType, _: list[ResultType]) -> ResultType:
    return ResultType(None if items.types is None else converted(items.types), many=False)


def _decimal(items: ResultType, _: list[ResultType]) -> ResultType:
    if items.types is None:
        return ResultType(None, many=False)
    types = converted(items.types)
    return ResultType(types if types.isdisjoint(_WHOLE) else types - _WHOLE | {"System.Decimal"}, many=False)


_RULES: dict[Rule, Callable[[ResultType, list[ResultType]], ResultType]] = {
    Rule.INPUT: lambda items, _: items,
    Rule.ITEM: lambda items, _: ResultType(items.types, many=False),
    Rule.SYSTEM: _system,
    Rule.DECIMAL: _decimal,
    Rule.PROJECTION: _projection,
    Rule.UNION: lambda items, results: union([items, *results]),
    Rule.ALTERNATIVES: _alternatives,
    Rule.FOLD: lambda _, results: results[0],
}
