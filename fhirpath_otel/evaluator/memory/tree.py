r"""The evaluation of fhirpathpy, driven by our own syntax tree: one closure a node.

The functions are fhirpathpy's. Paths, literals and operands are ours, because there it departs from the specification:
it reads `1.0` as 1 and `'\\n'` as a line break, makes two items of a primitive and its extensions, knows no minus in
front of a path, loses `$this` and `$index` after an inner criterion, and takes the first of several items where one
is required. Here several items are SeveralItems, with their place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

from fhirpathpy.engine import doInvoke, infix_invoke
from fhirpathpy.engine.evaluators import evaluators
from fhirpathpy.engine.nodes import FP_Quantity

from fhirpath_otel.errors import ExpressionTypeError
from fhirpath_otel.evaluator import syntax
from fhirpath_otel.evaluator.functions import FUNCTIONS, Evaluated
from fhirpath_otel.evaluator.memory.conversions import base_profile
from fhirpath_otel.evaluator.memory.operators import is_in, negated, unit_of
from fhirpath_otel.evaluator.memory.paths import as_node, children_named
from fhirpath_otel.evaluator.memory.strings import WITH_PATTERNS, pattern_error
from fhirpath_otel.evaluator.memory.temporals import temporal
from fhirpath_otel.evaluator.memory.values import convertible, distinct, order_of, plain, typed, with_value
from fhirpath_otel.evaluator.model import Model
from fhirpath_otel.evaluator.plan import SeveralItems
from fhirpath_otel.evaluator.typecheck import TypedExpression

Items = list[Any]
Context = dict[str, Any]
Evaluate = Callable[[Context, Items], Items]
"""Evaluates a node where `$this` is the given collection."""

_NODE = "fhirpath-otel"  # the type of our nodes in fhirpathpy's tree: one more that it can evaluate
_LOGIC = frozenset(("and", "or", "xor", "implies"))
_SINGLETONS = frozenset(("<", "<=", ">", ">=", "+", "-", "*", "/", "div", "mod", "&"))
_LITERALS = (
    syntax.EmptyLiteral,
    syntax.BooleanLiteral,
    syntax.StringLiteral,
    syntax.NumberLiteral,
    syntax.TemporalLiteral,
    syntax.QuantityLiteral,
)
_NAMES = {"in": "inOp", "contains": "containsOp", "is": "isOp", "as": "asOp"}

# These work on values, and would take a node of a resource for none.
_VALUES: dict[str, Callable[[Any], Any]] = {
    **{
        name: convertible for name in FUNCTIONS if name.startswith(("to", "convertsTo")) and name != "toChars"
    },
    **dict.fromkeys(("sum", "avg", "min", "max", "encode", "decode"), plain),
}


def compiled(typed: TypedExpression, model: Model, functions: Collection[str]) -> Evaluate:
    """The evaluation of an expression, given the names of the functions that there are.

    It raises SeveralItems, and what fhirpathpy raises. Raises ExpressionTypeError for a function that is not there.
    """
    evaluators.setdefault(_NODE, lambda context, items, one: one["evaluate"](context, items))
    for node in syntax.walk(typed.tree):
        if obstacle := _obstacle(node, model, functions):
            message, start, end = obstacle
            raise ExpressionTypeError(message, typed.expression, start, end)
    return Compiler(model).compile(typed.tree)


class FailedError(Exception):
    """What fhirpathpy or a function of ours raised, its cause, with the place of the function or operator."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start = start
        self.end = end


def _obstacle(node: syntax.Node, model: Model, functions: Collection[str]) -> tuple[str, int, int] | None:
    """Why a node cannot be evaluated, whatever the data, and its place."""
    if isinstance(node, syntax.Operation) and node.operator in {"*", "/"}:
        quantities = [one for operand in node.operands for one in _literal_quantity(operand)]
        if len(quantities) == len(node.operands) == 2 and unit_of(node.operator, *quantities) is None:
            what = "product" if node.operator == "*" else "quotient"
            place = node.operator_start
            return f"a {what} of these units cannot be evaluated yet", place, place + 1
    if not isinstance(node, syntax.Function):
        return None
    if node.name not in functions:
        end = node.name_start + len(node.name)
        return f"{node.name}() is FHIRPath, but cannot be evaluated yet", node.name_start, end
    argument = node.arguments[0] if node.arguments else None
    if isinstance(argument, syntax.StringLiteral):
        if node.name == "conformsTo" and base_profile(argument.value, model) is None:
            return "conformsTo() of this profile cannot be evaluated yet", argument.start, argument.end
        if node.name in WITH_PATTERNS and (wrong := pattern_error(argument.value)):
            return f"no regular expression: {wrong}", argument.start, argument.end
    return None


def _literal_quantity(node: syntax.Node) -> Iterator[FP_Quantity]:
    if isinstance(node, syntax.QuantityLiteral):
        yield from _literal(node)


def _parameter(evaluate: Evaluate | None, text: str = "") -> dict[str, Any]:
    """A node of fhirpathpy's tree; of a type name it reads the text only."""
    return {"type": _NODE, "evaluate": evaluate, "text": text}


class Compiler:
    """Makes a closure of every node; `compile` makes it of any."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.compilers: dict[type[syntax.Node], Callable[[Any], Evaluate]] = {
            syntax.Member: self.member,
            syntax.Function: self.function,
            syntax.Operation: self.operation,
            syntax.TypeOperation: self.type_operation,
            syntax.Indexer: self.indexer,
            syntax.Sign: self.sign,
            syntax.Variable: self.variable,
            syntax.ExternalConstant: self.external_constant,
        }

    def compile(self, node: syntax.Node) -> Evaluate:
        """The evaluation of a node."""
        compiler = self.compilers.get(type(node))
        if compiler is not None:
            return compiler(node)
        values = list(_literal(node))
        return lambda _context, _this: list(values)

    def single(self, node: syntax.Node) -> Evaluate:
        """At most one item."""
        evaluate = self.compile(node)

        def only(context: Context, this: Items) -> Items:
            items = evaluate(context, this)
            if len(items) > 1:
                raise SeveralItems(node.start, node.end)
            return items

        return only

    def boolean(self, node: syntax.Node) -> Evaluate:
        """True, false or nothing; one item of another type stands for true (singleton evaluation)."""
        evaluate = self.single(node)

        def truth(context: Context, this: Items) -> Items:
            return [
                value if isinstance(value := plain(item), bool) else True
                for item in with_value(evaluate(context, this))
            ]

        return truth

    # --- paths

    def member(self, node: syntax.Member) -> Evaluate:
        name = node.name
        if node.input is None and name[0].isupper():
            return lambda _context, this: [
                item for item in map(as_node, this) if self.model.is_a(item.path or "", name)
            ]
        evaluate = self.input(node)
        children = children_named(name, self.model)
        return lambda context, this: [child for item in evaluate(context, this) for child in children(item)]

    def input(self, node: syntax.Member | syntax.Function) -> Evaluate:
        """What stands before the dot; `$this` where nothing does."""
        return self.compile(node.input) if node.input else lambda _context, this: this

    def indexer(self, node: syntax.Indexer) -> Evaluate:
        evaluate, index = self.compile(node.input), _with_value(self.single(node.index))

        def item_at(context: Context, this: Items) -> Items:
            items, position = evaluate(context, this), index(context, this)
            if not position or plain(position[0]) < 0:
                return []
            return items[plain(position[0]) :][:1]

        return item_at

    def variable(self, node: syntax.Variable) -> Evaluate:
        if node.name == "$this":
            return lambda _context, this: this
        return lambda context, _this: _as_list(context.get(node.name))

    def external_constant(self, node: syntax.ExternalConstant) -> Evaluate:
        if node.name.startswith("vs-"):
            value: Items = [f"http://hl7.org/fhir/ValueSet/{node.name[3:]}"]
        elif node.name.startswith("ext-"):
            value = [f"http://hl7.org/fhir/StructureDefinition/{node.name[4:]}"]
        else:
            return lambda context, _this: _as_list(context["vars"][node.name])
        return lambda _context, _this: list(value)

    # --- functions and operators

    def function(self, node: syntax.Function) -> Evaluate:
        if node.name == "sort":
            return self.sort(node)
        name, spec, value_of = node.name, FUNCTIONS[node.name], _VALUES.get(node.name)
        evaluate = self.input(node)
        parameters = [self.argument(node, position) for position in range(len(node.arguments))]
        on_values = spec.accepts is not None or value_of is not None or name in {"not", "getValue"}

        def call(context: Context, this: Items) -> Items:
            items = evaluate(context, this)
            if (spec.singleton or name == "iif") and len(items) > 1:
                place = node if node.input is None else node.input
                raise SeveralItems(place.start, place.end)
            if on_values:
                items = with_value(items)
            if value_of is not None:
                items = [value_of(item) for item in items]
            outer = {key: context.get(key) for key in ("$this", "$index", "$total")}
            context["$this"] = this
            try:
                return list(doInvoke(context, name, items, parameters or None))
            except (SeveralItems, FailedError):
                raise
            except ArithmeticError:
                return []  # overflow: https://hl7.org/fhirpath/N1/#math
            except Exception as error:
                raise FailedError(node.name_start, node.name_start + len(name)) from error
            finally:
                context.update(outer)

        return call

    def argument(self, node: syntax.Function, position: int) -> dict[str, Any]:
        argument, expected = node.arguments[position], FUNCTIONS[node.name].argument(position)
        if expected.evaluated is Evaluated.TYPE:
            return _parameter(None, _type_name(argument))
        if expected.evaluated is Evaluated.CRITERION:
            return _parameter(self.boolean(argument))
        evaluate = self.compile(argument)
        return _parameter(evaluate if expected.accepts is None else _with_value(evaluate))

    def sort(self, node: syntax.Function) -> Evaluate:
        """By each key in turn, after a minus from the greatest; what has no key comes first in either case."""
        evaluate = self.input(node)
        keys = []
        for argument in reversed(node.arguments or (syntax.Variable(node.start, node.end, "$this"),)):
            descending = isinstance(argument, syntax.Sign) and argument.operator == "-"
            keys.append((self.single(argument.operand if descending else argument), descending))  # type: ignore[attr-defined]

        def sorted_items(context: Context, this: Items) -> Items:
            items = evaluate(context, this)
            for key, descending in keys:
                keyed = [(with_value(key(context, [item])), item) for item in items]
                without = [item for found, item in keyed if not found]
                keyed = [(found, item) for found, item in keyed if found]
                keyed.sort(key=lambda pair: _BY_ORDER(pair[0][0]), reverse=descending)
                items = [*without, *(item for _, item in keyed)]
            return items

        return sorted_items

    def operation(self, node: syntax.Operation) -> Evaluate:
        operator = node.operator
        if operator == "|":
            return self.union(node)
        if operator == "in" and len(node.operands) == 2 and (listed := _listed_strings(node.operands[1])):
            return self.membership(node, listed)
        first, *others = (
            self.operand(operator, operand, last=operand is node.operands[-1]) for operand in node.operands
        )

        def fold(context: Context, this: Items) -> Items:
            result = first(context, this)
            for other in others:
                left = list(result)
                pair = [_parameter(lambda _context, _this, left=left: left), _parameter(other)]  # type: ignore[misc]
                try:
                    result = infix_invoke(context, _NAMES.get(operator, operator), this, pair)
                except (SeveralItems, FailedError):
                    raise
                except ArithmeticError:
                    result = []  # overflow: https://hl7.org/fhirpath/N1/#math
                except Exception as error:
                    start = node.operator_start
                    raise FailedError(start, start + len(operator)) from error
            return list(result)

        return fold

    def union(self, node: syntax.Operation) -> Evaluate:
        if is_constant(node):
            values = distinct(value for operand in node.operands for value in _literal(operand))
            return lambda _context, _this: list(values)
        parts = [self.compile(operand) for operand in node.operands]
        return lambda context, this: distinct(item for part in parts for item in part(context, this))

    def membership(self, node: syntax.Operation, listed: frozenset[str]) -> Evaluate:
        """In a list of strings, however long: a set of codes would else be searched code by code."""
        evaluate, whole = self.single(node.operands[0]), self.compile(node.operands[1])

        def is_listed(context: Context, this: Items) -> Items:
            item = evaluate(context, this)
            if item and isinstance(typed(item[0]), str):
                return [plain(item[0]) in listed]
            return _as_list(is_in(context, item, whole(context, this)))

        return is_listed

    def operand(self, operator: str, operand: syntax.Node, *, last: bool) -> Evaluate:
        if operator in _LOGIC:
            return self.boolean(operand)
        if operator == "&":
            return _with_value(self.single(operand))
        item_of_membership = operator == ("contains" if last else "in")
        return (
            self.single(operand) if item_of_membership or operator in _SINGLETONS else self.compile(operand)
        )

    def type_operation(self, node: syntax.TypeOperation) -> Evaluate:
        specifier = node.type_specifier
        text = specifier.name if specifier.namespace is None else f"{specifier.namespace}.{specifier.name}"
        pair = [_parameter(self.single(node.operand)), _parameter(None, text)]
        return lambda context, this: list(infix_invoke(context, _NAMES[node.operator], this, pair))

    def sign(self, node: syntax.Sign) -> Evaluate:
        evaluate, negative = self.single(node.operand), node.operator == "-"

        def signed(context: Context, this: Items) -> Items:
            values = [plain(item) for item in with_value(evaluate(context, this))]
            return (
                values if not negative else [one for value in values if (one := negated(value)) is not None]
            )

        return signed


def is_constant(node: syntax.Node) -> bool:
    """Whether it is a literal, or a union of literals: evaluated when it is compiled."""
    if isinstance(node, syntax.Operation):
        return node.operator == "|" and all(isinstance(operand, _LITERALS) for operand in node.operands)
    return isinstance(node, _LITERALS)


def _with_value(evaluate: Evaluate) -> Evaluate:
    return lambda context, this: with_value(evaluate(context, this))


def _literal(node: syntax.Node) -> Iterator[Any]:
    if isinstance(node, syntax.BooleanLiteral | syntax.StringLiteral | syntax.NumberLiteral):
        yield node.value
    elif isinstance(node, syntax.QuantityLiteral):
        yield FP_Quantity(Decimal(node.number), node.unit if node.calendar else f"'{node.unit}'")
    elif isinstance(node, syntax.TemporalLiteral):
        yield temporal(node.text, node.type_name)
    else:
        assert isinstance(node, syntax.EmptyLiteral)


_BY_ORDER = cmp_to_key(lambda one, other: order_of(one, other) or 0)


def _listed_strings(node: syntax.Node) -> frozenset[str] | None:
    """The strings of `'a' | 'b' | …`; None for anything else."""
    if not isinstance(node, syntax.Operation) or node.operator != "|":
        return None
    strings = [operand.value for operand in node.operands if isinstance(operand, syntax.StringLiteral)]
    return frozenset(strings) if len(strings) == len(node.operands) else None


def _as_list(value: Any) -> Items:
    return value if isinstance(value, list) else [] if value is None else [value]


def _type_name(argument: syntax.Node) -> str:
    assert isinstance(argument, syntax.Member), "the type check lets only type names through"
    return f"{_type_name(argument.input)}.{argument.name}" if argument.input else argument.name
