"""The operators of an expression that fhirpathpy evaluates.

fhirpathpy looks up what evaluates a node by the node's type. So the marks are nodes of types of our own, in a copy of
the expression's tree: an evaluation of the original tree runs fhirpathpy's own code and nothing else, in whatever
thread and beside whatever marked one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextvars import ContextVar
from functools import cache, partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from fhirpathpy.engine.evaluators import evaluators

from fhirpath_otel import semconv
from fhirpath_otel.evaluator.functions import FUNCTIONS
from fhirpath_otel.evaluator.lexer import tokenize
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.template import known_names
from fhirpath_otel.telemetry.operators import OperatorMarks, Place

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.evaluation import Evaluation

    Node = Mapping[str, Any]

_MARK, _COUNT = "fhirpath_otel.mark", "fhirpath_otel.count"  # types of nodes
_CALL, _STEP, _INDEXER, _SIGN = (
    "FunctionInvocation",
    "MemberInvocation",
    "IndexerExpression",
    "PolarityExpression",
)
_IDENTIFIER, _TYPE_NAME = "Identifier", "TypeSpecifier"
_OPERATIONS = frozenset(
    (
        _INDEXER,
        _SIGN,
        "AdditiveExpression",
        "AndExpression",
        "EqualityExpression",
        "ImpliesExpression",
        "InequalityExpression",
        "MembershipExpression",
        "MultiplicativeExpression",
        "OrExpression",
        "TypeExpression",
        "UnionExpression",
    )
)
_PASSING = frozenset(("TermExpression", "InvocationTerm", "InvocationExpression", "ParenthesizedTerm"))
_MOST_TOKENS = 100_000

_active: ContextVar[OperatorMarks] = ContextVar("fhirpath_otel_marks")


class MarkedExpression:
    """A compiled expression of fhirpathpy, a second time and with marks at its operators.

    `compiled` is what `fhirpathpy.compile` gave for the text `expression`; without the text nobody knows where the
    operators are in it. Threads may share it. Raises TypeError for what is no such expression, or nested too deep.
    """

    def __init__(self, compiled: Any, expression: str | None = None) -> None:
        try:
            marking = _Marking(expression)
            tree = {"children": [marking.node(compiled.parsedPath["children"][0])]}
            self._original = compiled
            self._marked = type(compiled)(compiled.func, tree, compiled.model, compiled.options)
        except (AttributeError, LookupError, RecursionError, TypeError) as error:
            raise TypeError("no compiled expression of fhirpathpy that can be marked") from error
        self._places = marking.places()
        evaluators.setdefault(_MARK, _evaluate_marked)
        evaluators.setdefault(_COUNT, _evaluate_counted)

    def evaluate(self, evaluation: Evaluation, resource: Any, context: Any = None) -> Any:
        """What `compiled(resource, context)` gives; notes in `evaluation` what the operators did, also if it fails."""
        marks = OperatorMarks(self._places)
        token = _active.set(marks)
        try:
            return self._marked(resource, context)
        except RecursionError:
            marks = OperatorMarks(
                ()
            )  # Marks take room on the stack: again without, functions of the user's too.
        finally:
            _active.reset(token)
            evaluation.operators = marks.times()
        return self._original(resource, context)


def with_operators(
    compiled: Any, expression: str | None = None
) -> Callable[[Evaluation], Callable[..., Any]]:
    """For `watch_calls`: what to call instead of `compiled` so that an evaluation notes its operators.

    The marks are made when they are wanted for the first time. What cannot be marked is called as it is.
    """

    @cache
    def marked() -> MarkedExpression | None:
        try:
            return MarkedExpression(compiled, expression)
        except Exception:  # noqa: BLE001 -- telemetry never fails an evaluation
            return None

    def noting(evaluation: Evaluation) -> Callable[..., Any]:
        found = marked()
        return compiled if found is None else partial(found.evaluate, evaluation)

    return noting


def _evaluate_marked(context: Any, items: Any, node: Node) -> Any:
    kind, number, consumer, of_context = node["mark"]
    marks = _active.get()
    mark = marks.marks[number]
    if of_context:
        mark.input_count += len(items) if isinstance(items, list) else 1
    outer_ns, marks.nested_ns = marks.nested_ns, 0
    started_ns = perf_counter_ns()
    try:
        found = evaluators[kind](context, items, node)
        count = len(found) if isinstance(found, list) else 1
        mark.output_count += count
        if consumer is not None:
            marks.marks[consumer].input_count += count
        return found
    finally:
        whole_ns = perf_counter_ns() - started_ns
        mark.calls += 1
        mark.active_ns += whole_ns - marks.nested_ns
        marks.nested_ns = outer_ns + whole_ns


def _evaluate_counted(context: Any, items: Any, node: Node) -> Any:
    counted = node["counted"]
    found = evaluators[counted["type"]](context, items, counted)
    _active.get().marks[node["consumer"]].input_count += len(found) if isinstance(found, list) else 1
    return found


class _Marking:
    """Copies a tree and puts marks into it, in the order of the text."""

    def __init__(self, expression: str | None) -> None:
        self._names = known_names(load_model())
        self._places: list[Place] = []
        self._tokens, self._starts, *_ = tokenize(expression or "", _MOST_TOKENS)
        self._next = 0
        self._found = expression is not None

    def places(self) -> list[Place]:
        """The places of the marks, with positions if every token was where it had to be."""
        if self._found:
            return self._places
        return [place._replace(position=None, length=None) for place in self._places]

    def node(self, node: Node, consumer: int | None = None) -> Node:
        """The copy of a node and of what is below it. Its result counts as input of the mark `consumer`."""
        kind, children = node["type"], node.get("children", ())
        if kind == _CALL:
            name, *parameters = children[0]["children"]
            number = self._place(name["text"], FUNCTIONS)
            function = {**children[0], "children": [name, *map(self.node, parameters)]}
            return _marked(node, [function], number, consumer, of_context=True)
        if kind == _STEP:
            number = self._place(children[0]["text"], self._names, is_path=True)
            return _marked(node, children, number, consumer, of_context=True)
        if kind in _OPERATIONS:
            return self._operation(node, consumer)
        if kind == _IDENTIFIER:
            self._find(node["text"])
        elif kind in _PASSING:
            # What gives the result is the last of its children.
            *others, last = children
            copies = [*map(self.node, others), self.node(last, consumer)]
            return {**node, "children": copies}
        copy = {**node, "children": [*map(self.node, children)]} if children else node
        return (
            copy
            if consumer is None or kind == _TYPE_NAME
            else {"type": _COUNT, "counted": copy, "consumer": consumer}
        )

    def _operation(self, node: Node, consumer: int | None) -> Node:
        """The first operand stands before the symbol, except that of a sign."""
        symbol, operands = node["terminalNodeText"][0], node["children"]
        number = len(self._places)
        self._places.append(Place(symbol))
        before = [] if node["type"] == _SIGN else [self.node(operands[0], number)]
        is_indexer = node["type"] == _INDEXER
        name = semconv.INDEXER if is_indexer else symbol
        self._places[number] = Place(name, self._find(symbol), len(symbol))
        after = [self.node(one, None if is_indexer else number) for one in operands[len(before) :]]
        return _marked(node, [*before, *after], number, consumer)

    def _place(self, name: str, names: Container[str], *, is_path: bool = False) -> int:
        """The number of a mark at the next name of the text."""
        self._places.append(
            Place(name if name in names else semconv.UNKNOWN, self._find(name), len(name), is_path)
        )
        return len(self._places) - 1

    def _find(self, token: str) -> int | None:
        """Where the next such token begins."""
        if self._found:
            try:
                index = self._tokens.index(token, self._next)
            except ValueError:
                self._found = False
            else:
                self._next = index + 1
                return self._starts[index]
        return None


def _marked(
    node: Node, children: Sequence[Node], number: int, consumer: int | None, *, of_context: bool = False
) -> Node:
    mark = (node["type"], number, consumer, of_context)
    return {**node, "type": _MARK, "mark": mark, "children": children}
