r"""The evaluation of fhirpathpy, driven by our own syntax tree: one closure a node.

The functions are fhirpathpy's. Paths, literals and operands are ours, because there it departs from the specification:
it reads `1.0` as 1 and `'\\n'` as a line break, makes two items of a primitive and its extensions, knows no minus in
front of a path, loses `$this` and `$index` after an inner criterion, and takes the first of several items where one
is required. Here several items are SeveralItems, with their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from fhirpathpy.engine import doInvoke, infix_invoke
from fhirpathpy.engine.evaluators import evaluators
from fhirpathpy.engine.nodes import FP_DateTime, FP_Quantity, FP_Time, ResourceNode

from fhirpath_otel.evaluator import syntax
from fhirpath_otel.evaluator.functions import FUNCTIONS, Evaluated
from fhirpath_otel.evaluator.memory_values import distinct, is_number, plain
from fhirpath_otel.evaluator.model import Model, json_key
from fhirpath_otel.evaluator.plan import SeveralItems

Items = list[Any]
Context = dict[str, Any]
Evaluate = Callable[[Context, Items], Items]
"""Evaluates a node where `$this` is the given collection."""

_NODE = "fhirpath-otel"  # the type of our nodes in fhirpathpy's tree: one more that it can evaluate
_LOGIC = frozenset(("and", "or", "xor", "implies"))
_SINGLETONS = frozenset(("<", "<=", ">", ">=", "+", "-", "*", "/", "div", "mod", "&"))
_NAMES = {"in": "inOp", "contains": "containsOp", "is": "isOp", "as": "asOp"}

# These work on values, and would take a node of a resource for none.
_OF_VALUES = frozenset(
    (
        *(name for name in FUNCTIONS if name.startswith(("to", "convertsTo")) and name != "toChars"),
        *("sum", "avg", "min", "max", "encode", "decode"),
    )
)


def compiled(node: syntax.Node, model: Model) -> Evaluate:
    """The evaluation of a tree that passed the type check. It raises SeveralItems, and what fhirpathpy raises."""
    evaluators.setdefault(_NODE, lambda context, items, one: one["evaluate"](context, items))
    return _Compiler(model).compile(node)


def _parameter(evaluate: Evaluate | None, text: str = "") -> dict[str, Any]:
    """A node of fhirpathpy's tree; of a type name it reads the text only."""
    return {"type": _NODE, "evaluate": evaluate, "text": text}


class _Compiler:
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
                value if isinstance(value := plain(item), bool) else True for item in evaluate(context, this)
            ]

        return truth

    # --- paths

    def member(self, node: syntax.Member) -> Evaluate:
        name, children = node.name, self.children_named(node.name)
        if node.input is not None:
            evaluate = self.compile(node.input)
            return lambda context, this: [
                child for item in evaluate(context, this) for child in children(_as_node(item))
            ]
        if not name[0].isupper():
            return lambda _context, this: [child for item in this for child in children(_as_node(item))]

        def leading_type(_context: Context, this: Items) -> Items:
            nodes = [_as_node(item) for item in this]
            return [node for node in nodes if self.model.is_a(node.path or "", name)]

        return leading_type

    def children_named(self, name: str) -> Callable[[ResourceNode], Iterator[Any]]:
        known: dict[str | None, list[tuple[str, str | None]]] = {}

        def children(node: ResourceNode) -> Iterator[Any]:
            owner, path = node.data, node.path
            if not isinstance(owner, Mapping):
                if name == "value" and owner is not None:
                    yield owner.value if isinstance(owner, FP_Quantity) else owner
                    return
                owner, path = node._data or {}, "Element"  # noqa: SLF001  fhirpathpy's place for extensions
            keys = known.get(path)
            if keys is None:
                keys = known[path] = list(self.keys(path, name))
            for key, kind in keys:
                if key in owner or f"_{key}" in owner:
                    yield from _nodes(owner.get(key), owner.get(f"_{key}"), kind)

        return children

    def keys(self, path: str | None, name: str) -> Iterator[tuple[str, str | None]]:
        """The JSON keys that a child can have, with the types of its values."""
        element = self.model.element(path or "", name)
        if element is None:
            yield name, "Extension" if name == "extension" else None
        else:
            for kind in element.types:
                yield json_key(element, kind), kind

    def indexer(self, node: syntax.Indexer) -> Evaluate:
        evaluate, index = self.compile(node.input), self.single(node.index)

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
        name, spec = node.name, FUNCTIONS[node.name]
        evaluate = None if node.input is None else self.compile(node.input)
        parameters = [self.argument(node, position) for position in range(len(node.arguments))]

        def call(context: Context, this: Items) -> Items:
            items = this if evaluate is None else evaluate(context, this)
            if (spec.singleton or name == "iif") and len(items) > 1:
                place = node if node.input is None else node.input
                raise SeveralItems(place.start, place.end)
            if name in _OF_VALUES:
                items = [plain(item) for item in items]
            outer = {key: context.get(key) for key in ("$this", "$index", "$total")}
            context["$this"] = this
            try:
                return list(doInvoke(context, name, items, parameters or None))
            finally:
                context.update(outer)

        return call

    def argument(self, node: syntax.Function, position: int) -> dict[str, Any]:
        argument, evaluated = node.arguments[position], FUNCTIONS[node.name].argument(position).evaluated
        if evaluated is Evaluated.TYPE:
            return _parameter(None, _type_name(argument))
        return _parameter(
            self.boolean(argument) if evaluated is Evaluated.CRITERION else self.compile(argument)
        )

    def operation(self, node: syntax.Operation) -> Evaluate:
        operator = node.operator
        if operator == "|":
            parts = [self.compile(operand) for operand in node.operands]
            return lambda context, this: distinct(item for part in parts for item in part(context, this))
        first, *others = (
            self.operand(operator, operand, last=operand is node.operands[-1]) for operand in node.operands
        )

        def fold(context: Context, this: Items) -> Items:
            result = first(context, this)
            for other in others:
                left = list(result)
                pair = [_parameter(lambda _context, _this, left=left: left), _parameter(other)]  # type: ignore[misc]
                result = infix_invoke(context, _NAMES.get(operator, operator), this, pair)
            return list(result)

        return fold

    def operand(self, operator: str, operand: syntax.Node, *, last: bool) -> Evaluate:
        if operator in _LOGIC:
            return self.boolean(operand)
        item_of_membership = operator == ("contains" if last else "in")
        return self.single(operand) if item_of_membership or operator in _SINGLETONS else self.compile(operand)

    def type_operation(self, node: syntax.TypeOperation) -> Evaluate:
        specifier = node.type_specifier
        text = specifier.name if specifier.namespace is None else f"{specifier.namespace}.{specifier.name}"
        pair = [_parameter(self.single(node.operand)), _parameter(None, text)]
        return lambda context, this: list(infix_invoke(context, _NAMES[node.operator], this, pair))

    def sign(self, node: syntax.Sign) -> Evaluate:
        evaluate, negative = self.single(node.operand), node.operator == "-"

        def signed(context: Context, this: Items) -> Items:
            return [_negated(plain(item)) if negative else plain(item) for item in evaluate(context, this)]

        return signed


def _literal(node: syntax.Node) -> Iterator[Any]:
    if isinstance(node, syntax.BooleanLiteral | syntax.StringLiteral):
        yield node.value
    elif isinstance(node, syntax.NumberLiteral):
        yield Decimal(node.text) if node.type_name == "Decimal" else int(node.text)
    elif isinstance(node, syntax.QuantityLiteral):
        yield FP_Quantity(Decimal(node.number), node.unit if node.calendar else f"'{node.unit}'")
    elif isinstance(node, syntax.TemporalLiteral):
        value = FP_Time(node.text) if node.type_name == "Time" else FP_DateTime(node.text.removesuffix("T"))
        value.system_type = node.type_name  # fhirpathpy has one class for dates with and without time
        yield value
    else:
        assert isinstance(node, syntax.EmptyLiteral)


def _nodes(value: Any, companion: Any, kind: str | None) -> Iterator[ResourceNode]:
    """The items of an element: each value with what stands beside it under `_element`."""
    pairs = [(value, companion)]
    if isinstance(value, list) or isinstance(companion, list):
        pairs = list(zip_longest(value or (), companion or ()))
    for one, beside in pairs:
        if one is not None or beside is not None:
            number = kind == "decimal" and one is not None
            yield ResourceNode(Decimal(one) if number else one, kind, beside)


def _as_node(item: Any) -> ResourceNode:
    return item if isinstance(item, ResourceNode) else ResourceNode(item, None)


def _as_list(value: Any) -> Items:
    return value if isinstance(value, list) else [] if value is None else [value]


def _type_name(argument: syntax.Node) -> str:
    assert isinstance(argument, syntax.Member), "the type check lets only type names through"
    return f"{_type_name(argument.input)}.{argument.name}" if argument.input else argument.name


def _negated(value: Any) -> Any:
    if isinstance(value, FP_Quantity):
        return FP_Quantity(-value.value, value.unit)
    if not is_number(value):
        raise TypeError("a sign is for numbers")
    return -value
