"""The template of an expression: what telemetry shows instead of it.

Printed from the syntax tree, so that comments and spacing are gone and equal shapes give equal hashes. Every
literal becomes `?`, and so does every name that is not known to the model or the function table, and every name
in back-ticks or quotes. Costs some 10 µs, once per parsed text: keep the result beside the tree.
"""

from __future__ import annotations

from functools import cache

from fhirpath_otel import semconv
from fhirpath_otel.evaluator.functions import FUNCTIONS
from fhirpath_otel.evaluator.model import SYSTEM_TYPES, Model
from fhirpath_otel.evaluator.syntax import (
    OPERATOR_LEVELS,
    ExternalConstant,
    Function,
    Indexer,
    Member,
    Node,
    Operation,
    Sign,
    TypeOperation,
    Variable,
)
from fhirpath_otel.telemetry.redaction import Template, template_from

ENVIRONMENT = frozenset({"context", "loinc", "resource", "rootResource", "sct", "ucum"})
"""The environment variables that FHIRPath and FHIR define; others are a user's own."""

_BINDING = {operator: level for level, operators in enumerate(OPERATOR_LEVELS) for operator in operators}
_SIGN = len(_BINDING)
_TERM = _SIGN + 1


@cache
def known_names(model: Model) -> frozenset[str]:
    """Every name that telemetry may show: elements and types of the model, functions, and FHIRPath's own types."""
    system_types = {*SYSTEM_TYPES.values(), "Any", "Long", "Quantity", "System", "FHIR"}
    return frozenset({*model.element_names, *model.type_names(), *FUNCTIONS, *system_types})


@cache
def operator_names(model: Model) -> frozenset[str]:
    """Every name that telemetry may give to an operator."""
    return frozenset({*known_names(model), *_BINDING, semconv.INDEXER})


def expression_template(tree: Node, model: Model) -> Template:
    """The template of a parsed expression; it shows no names but those of the model and the function table."""
    return template_from(_text(tree, known_names(model)))


def _text(node: Node, names: frozenset[str]) -> str:
    if isinstance(node, Member):
        return _step(node.input, names) + ("?" if node.delimited else _shown(node.name, names))
    if isinstance(node, Function):
        arguments = ", ".join(_text(argument, names) for argument in node.arguments)
        return f"{_step(node.input, names)}{_shown(node.name, names)}({arguments})"
    if isinstance(node, Indexer):
        return f"{_operand(node.input, _TERM, names)}[{_text(node.index, names)}]"
    if isinstance(node, Sign):
        return node.operator + _operand(node.operand, _SIGN, names)
    if isinstance(node, Operation):
        # Operators associate to the left, so what follows the first operand must bind more tightly.
        first, *rest = node.operands
        level = _BINDING[node.operator]
        texts = [_operand(first, level, names), *(_operand(operand, level + 1, names) for operand in rest)]
        return f" {node.operator} ".join(texts)
    if isinstance(node, TypeOperation):
        specifier = node.type_specifier
        namespace = "" if specifier.namespace is None else _shown(specifier.namespace, names) + "."
        operand = _operand(node.operand, _BINDING[node.operator], names)
        return f"{operand} {node.operator} {namespace}{_shown(specifier.name, names)}"
    if isinstance(node, Variable):
        return node.name
    if isinstance(node, ExternalConstant):
        return "%" + (node.name if not node.delimited and node.name in ENVIRONMENT else "?")
    return "?"


def _shown(name: str, names: frozenset[str]) -> str:
    return name if name in names else "?"


def _step(source: Node | None, names: frozenset[str]) -> str:
    return "" if source is None else _operand(source, _TERM, names) + "."


def _operand(node: Node, level: int, names: frozenset[str]) -> str:
    """The node's text, in parentheses if it binds less tightly than its place demands."""
    return _text(node, names) if _level(node) >= level else f"({_text(node, names)})"


def _level(node: Node) -> int:
    if isinstance(node, (Operation, TypeOperation)):
        return _BINDING[node.operator]
    return _SIGN if isinstance(node, Sign) else _TERM
