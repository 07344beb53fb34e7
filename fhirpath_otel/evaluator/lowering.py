"""From the type-checked syntax tree to the plan: decides, operator by operator, whether SQL can express it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from fhirpath_otel.evaluator import plan, syntax
from fhirpath_otel.evaluator.model import Model, json_key
from fhirpath_otel.evaluator.operand_types import family, system_types
from fhirpath_otel.evaluator.operator_lowering import (
    BOOLEAN,
    binary,
    require_boolean,
    require_number,
    require_one_type,
    union,
)
from fhirpath_otel.evaluator.plan import NotExpressible, Operator, Plan
from fhirpath_otel.evaluator.typecheck import TypedExpression

INTEGER = ("System.Integer",)

# A fold of binary operators nests as deep as it has terms; printing recurses once a level.
MOST_FOLDED_OPERANDS = 64

# A DECIMAL of DuckDB ends at 38 digits.
LONGEST_NUMBER = 40


def lower(typed: TypedExpression, resource_type: str, model: Model) -> Plan:
    """The plan of an expression, or `NotExpressible` naming the operator that SQL cannot say."""
    lowering = _Lowering(resource_type, model)
    root = lowering.lower(typed.tree, lowering.resource(typed.tree), level=0)
    if "Resource" in root.types:
        raise NotExpressible(
            "result", "resources inside resources are kept as text only", root.start, root.end
        )
    return Plan(resource_type, root)


class _Lowering:
    def __init__(self, resource_type: str, model: Model) -> None:
        self.resource_type = resource_type
        self.model = model
        self.functions: dict[str, Callable[[syntax.Function, Operator, int], Operator]] = {
            "where": self.where,
            "exists": self.exists,
            "empty": self.empty,
            "not": self.not_,
            "all": self.all,
            "count": self.count,
            "first": self.first,
            "last": self.last,
            "ofType": self.of_type,
            "as": self.of_type,
            "is": self.is_function,
            "extension": self.extension,
        }

    def resource(self, node: syntax.Node) -> plan.Resource:
        return plan.Resource(node.start, node.end, (self.resource_type,), False)

    def lower(self, node: syntax.Node, this: Operator, level: int) -> Operator:
        if isinstance(node, syntax.Member):
            return self.member(node, this, level)
        if isinstance(node, syntax.Function):
            return self.function(node, this, level)
        if isinstance(node, syntax.Operation):
            return self.operation(node, this, level)
        if isinstance(node, syntax.TypeOperation):
            input_ = self.lower(node.operand, this, level)
            test = self.type_test if node.operator == "is" else self.cast
            return test(input_, self.type_name(node.type_specifier), node)
        if isinstance(node, syntax.Indexer):
            return self.indexer(node, this, level)
        if isinstance(node, syntax.Sign):
            return self.sign(node, this, level)
        if isinstance(node, syntax.Variable):
            return self.variable(node, this, level)
        return self.literal(node)

    def literal(self, node: syntax.Node) -> Operator:
        if isinstance(node, syntax.EmptyLiteral):
            return plan.Nothing(node.start, node.end, (), False)
        if isinstance(node, syntax.BooleanLiteral | syntax.StringLiteral):
            kind = "System.Boolean" if isinstance(node, syntax.BooleanLiteral) else "System.String"
            return plan.Constant(node.start, node.end, (kind,), False, node.value)
        if isinstance(node, syntax.NumberLiteral) and len(node.text) <= LONGEST_NUMBER:
            kind = "Decimal" if isinstance(node.value, Decimal) else node.type_name
            return plan.Constant(node.start, node.end, (f"System.{kind}",), False, node.value)
        if isinstance(node, syntax.TemporalLiteral) and node.type_name == "Date":
            return plan.Constant(node.start, node.end, ("System.Date",), False, node.text)
        if isinstance(node, syntax.ExternalConstant):
            if node.name in ("resource", "context", "rootResource") and not node.delimited:
                return self.resource(node)
            raise NotExpressible(f"%{node.name}", "this variable is not in SQL yet", node.start, node.end)
        kind = getattr(node, "type_name", "Quantity")
        raise NotExpressible("literal", f"a literal of type {kind} is not in SQL yet", node.start, node.end)

    def variable(self, node: syntax.Variable, this: Operator, level: int) -> Operator:
        if node.name == "$this":
            return this
        if node.name == "$index" and level:
            return plan.Index(node.start, node.end, INTEGER, False, level)
        raise NotExpressible(node.name, "this variable is not in SQL yet", node.start, node.end)

    # --- paths

    def member(self, node: syntax.Member, this: Operator, level: int) -> Operator:
        if node.input is None:
            if isinstance(this, plan.Resource) and self.model.is_a(self.resource_type, node.name):
                return self.resource(node)
            return self.navigate(this, node.name, node)
        return self.navigate(self.lower(node.input, this, level), node.name, node)

    def navigate(self, input_: Operator, name: str, node: syntax.Node) -> Operator:
        if isinstance(input_, plan.Nothing):
            return input_
        owners = [
            kind for kind in input_.types if self.model.element(kind, name) and self.may_have(kind, name)
        ]
        if len(owners) != 1 or "Resource" in input_.types:
            reason = "the type of its input is known only in the data"
            raise NotExpressible(name, reason, node.start, node.end)
        if len(input_.types) > 1:
            input_ = plan.narrow(input_, frozenset(owners))
        element = self.model.element(owners[0], name)
        assert element is not None
        alternatives = tuple((kind, json_key(element, kind)) for kind in element.types)
        many = input_.many or element.many
        return plan.Navigate(
            node.start, node.end, element.types, many, input_, name, alternatives, element.many
        )

    def may_have(self, kind: str, name: str) -> bool:
        """Of a primitive only id and extensions are navigated to; `value` is the primitive itself."""
        return self.model.kind(kind) != "primitive-type" or name in ("id", "extension")

    def indexer(self, node: syntax.Indexer, this: Operator, level: int) -> Operator:
        index = self.lower(node.index, this, level)
        if not isinstance(index, plan.Constant) or type(index.value) is not int:
            reason = "only a literal integer index is in SQL yet"
            raise NotExpressible("[]", reason, node.index.start, node.index.end)
        input_ = self.lower(node.input, this, level)
        if not 0 <= index.value < 2**31:  # beyond what an Integer, and so an index, can be
            return plan.Nothing(node.start, node.end, input_.types, False)
        return self.pick(input_, index.value, node)

    def pick(self, input_: Operator, position: int, node: syntax.Node) -> Operator:
        require_one_type(input_, "first()/last()/[]", node)
        return plan.Pick(node.start, node.end, input_.types, False, input_, position)

    # --- functions

    def function(self, node: syntax.Function, this: Operator, level: int) -> Operator:
        if node.name == "iif":
            return self.iif(node, this, level)
        handler = self.functions.get(node.name)
        if handler is None:
            raise NotExpressible(f"{node.name}()", "this function is not in SQL yet", node.start, node.end)
        input_ = this if node.input is None else self.lower(node.input, this, level)
        return handler(node, input_, level)

    def where(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        if isinstance(input_, plan.Nothing):
            return input_
        criterion = self.criterion(node, input_, level)
        return plan.Filter(node.start, node.end, input_.types, input_.many, input_, criterion, level + 1)

    def criterion(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        argument = node.arguments[0]
        require_one_type(input_, f"{node.name}()", node)
        item = plan.Item(argument.start, argument.end, input_.types, False, level + 1)
        criterion = self.lower(argument, item, level + 1)
        require_boolean(criterion, f"{node.name}()")
        return criterion

    def exists(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        if node.arguments:
            input_ = self.where(node, input_, level)
        return plan.Exists(node.start, node.end, BOOLEAN, False, input_)

    def empty(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        return plan.Not(node.start, node.end, BOOLEAN, False, self.exists(node, input_, level))

    def not_(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        require_boolean(input_, "not()")
        return plan.Not(node.start, node.end, BOOLEAN, False, input_)

    def all(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        if isinstance(input_, plan.Nothing):
            return plan.Constant(node.start, node.end, BOOLEAN, False, True)
        criterion = self.criterion(node, input_, level)
        return plan.All(node.start, node.end, BOOLEAN, False, input_, criterion, level + 1)

    def count(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        return plan.Count(node.start, node.end, INTEGER, False, input_)

    def first(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        return self.pick(input_, 0, node)

    def last(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        return self.pick(input_, -1, node)

    def extension(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        url = node.arguments[0]
        if not isinstance(url, syntax.StringLiteral):
            raise NotExpressible("extension()", "only a literal url is in SQL yet", url.start, url.end)
        extensions = self.navigate(input_, "extension", node)
        if isinstance(extensions, plan.Nothing):
            return extensions
        item = plan.Item(url.start, url.end, extensions.types, False, level + 1)
        test = plan.Compare(
            url.start,
            url.end,
            BOOLEAN,
            False,
            "=",
            self.navigate(item, "url", url),
            self.literal(url),
            "String",
        )
        return plan.Filter(
            node.start, node.end, extensions.types, extensions.many, extensions, test, level + 1
        )

    def iif(self, node: syntax.Function, this: Operator, level: int) -> Operator:
        if node.input is not None and not isinstance(self.lower(node.input, this, level), plan.Resource):
            raise NotExpressible("iif()", "with an input it is not in SQL yet", node.start, node.end)
        criterion, *branches = (self.lower(argument, this, level) for argument in node.arguments)
        require_boolean(criterion, "iif()")
        then, otherwise = (*branches, plan.Nothing(node.end, node.end, (), False))[:2]
        if then.many or otherwise.many:
            raise NotExpressible(
                "iif()", "a branch with several items is not in SQL yet", node.start, node.end
            )
        known = [branch for branch in (then, otherwise) if branch.types]
        types = tuple(dict.fromkeys(kind for branch in known for kind in branch.types))
        if len(types) > 1 and {family(branch) for branch in known} == {"Number"}:
            types = ("System.Decimal",)
        elif len({family(branch) for branch in known}) != 1 or (len(types) > 1 and family(known[0]) is None):
            raise NotExpressible("iif()", "its branches are of different types", node.start, node.end)
        return plan.Conditional(node.start, node.end, types, False, criterion, then, otherwise)

    # --- types

    def of_type(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        name = self.type_name(_type_argument(node))
        return self.cast(input_, name, node) if node.name == "as" else self.keep_type(input_, name, node)

    def is_function(self, node: syntax.Function, input_: Operator, level: int) -> Operator:
        return self.type_test(input_, self.type_name(_type_argument(node)), node)

    def cast(self, input_: Operator, name: str, node: syntax.Node) -> Operator:
        if input_.many:
            raise NotExpressible("as", "its input can have several items", node.start, node.end)
        return self.keep_type(input_, name, node)

    def keep_type(self, input_: Operator, name: str, node: syntax.Node) -> Operator:
        matching = self.matching(input_, name, node)
        if matching == frozenset(input_.types):
            return replace(input_, start=node.start, end=node.end)
        if matching and not isinstance(input_, plan.Navigate):
            raise NotExpressible("type", "its input is a choice of types", node.start, node.end)
        return replace(plan.narrow(input_, matching), start=node.start, end=node.end)

    def type_test(self, input_: Operator, name: str, node: syntax.Node) -> Operator:
        matching = self.matching(input_, name, node)
        decided = len(matching) in {0, len(input_.types)}
        if not decided and (input_.many or not isinstance(input_, plan.Navigate)):
            raise NotExpressible("is", "its input is a choice of types", node.start, node.end)
        return plan.TypeTest(node.start, node.end, BOOLEAN, False, input_, matching)

    def matching(self, input_: Operator, name: str, node: syntax.Node) -> frozenset[str]:
        """Those of the input's types that are `name`; not expressible where only the data can tell."""
        literal = any(kind.startswith("System.") for kind in input_.types)
        open_ = any(self.model.is_abstract(kind) and self.model.is_a(name, kind) for kind in input_.types)
        if open_ or (literal and not name.startswith("System.")):
            reason = "the type of its input is known only in the data"
            raise NotExpressible("type", reason, node.start, node.end)
        return frozenset(kind for kind in input_.types if kind == name or self.model.is_a(kind, name))

    def type_name(self, specifier: syntax.TypeSpecifier) -> str:
        if specifier.namespace == "System" or self.model.kind(specifier.name) is None:
            return f"System.{specifier.name}"
        return specifier.name

    # --- operators

    def sign(self, node: syntax.Sign, this: Operator, level: int) -> Operator:
        operand = self.lower(node.operand, this, level)
        require_number(operand, node.operator, node)
        if node.operator == "+" or not operand.types:
            return operand
        if isinstance(operand, plan.Constant):
            assert isinstance(operand.value, int | Decimal)
            return plan.Constant(node.start, node.end, operand.types, False, -operand.value)
        zero = plan.Constant(node.start, node.start, INTEGER, False, 0)
        return plan.Arithmetic(node.start, node.end, tuple(system_types(operand)), False, "-", zero, operand)

    def operation(self, node: syntax.Operation, this: Operator, level: int) -> Operator:
        operands = [self.lower(operand, this, level) for operand in node.operands]
        if node.operator == "|":
            return union(node, operands)
        if node.operator in ("and", "or", "xor"):
            for operand in operands:
                require_boolean(operand, node.operator)
            return plan.Logic(node.start, node.end, BOOLEAN, False, node.operator, tuple(operands))
        if len(operands) > MOST_FOLDED_OPERANDS:
            reason = f"more than {MOST_FOLDED_OPERANDS} terms are not in SQL"
            raise NotExpressible(node.operator, reason, node.start, node.end)
        result = operands[0]
        for operand in operands[1:]:
            result = binary(node, result, operand)
        return result


def _type_argument(node: syntax.Function) -> syntax.TypeSpecifier:
    argument = node.arguments[0]
    assert isinstance(argument, syntax.Member), "the type check lets only type names through"
    namespace = argument.input.name if isinstance(argument.input, syntax.Member) else None
    return syntax.TypeSpecifier(argument.start, argument.end, namespace, argument.name)
