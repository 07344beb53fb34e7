"""The evaluation with marks at its operators: the closures of `tree.py`, with a clock around each.

It is compiled for one evaluation (1.5 µs a node), beside the closures without marks, which so have nothing to ask.
"""

from __future__ import annotations

import re
from contextlib import suppress
from time import perf_counter_ns

from fhirpath_otel import semconv
from fhirpath_otel.evaluator import syntax
from fhirpath_otel.evaluator.functions import FUNCTIONS
from fhirpath_otel.evaluator.memory.tree import Compiler, Context, Evaluate, Items, is_constant
from fhirpath_otel.evaluator.model import Model
from fhirpath_otel.evaluator.template import known_names
from fhirpath_otel.telemetry.operators import Mark, OperatorMarks, Place

_before_token = re.compile(r"(?:[ \t\r\n(]|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL).match


def marked(
    tree: syntax.Node, expression: str, model: Model, marks: OperatorMarks, plain: Evaluate
) -> Evaluate:
    """The evaluation of a tree that notes in `marks` what its operators do; it gives what `plain` gives.

    Marks take room on the stack, so where the marked evaluation fails, the other one says whether it is theirs.
    """
    try:
        evaluate = _MarkingCompiler(expression, model, marks).compile(tree)
    except RecursionError:
        return plain

    def evaluated(context: Context, this: Items) -> Items:
        with suppress(Exception):
            return evaluate(context, this)
        return plain(context, this)

    return evaluated


class _MarkingCompiler(Compiler):
    def __init__(self, expression: str, model: Model, marks: OperatorMarks) -> None:
        super().__init__(model)
        self._expression = expression
        self._names = known_names(model)
        self._marks = marks
        self._consumers: dict[syntax.Node, Mark] = {}

    def compile(self, node: syntax.Node) -> Evaluate:
        """As without marks, with the mark of this node and of the one that it is an operand of."""
        consumer = self._consumers.get(node)
        place = None if is_constant(node) else self._place(node)
        if place is None:
            evaluate = super().compile(node)
            return evaluate if consumer is None else _counted(evaluate, consumer)
        mark = self._marks.add(place)
        operands = _operands(node)
        self._consumers.update(dict.fromkeys(operands, mark))
        return _timed(super().compile(node), self._marks, mark, consumer, of_context=not operands)

    def _place(self, node: syntax.Node) -> Place | None:
        """What the node is in the text; None for one that is no operator."""
        if isinstance(node, syntax.Member):
            if node.delimited:
                return Place(semconv.UNKNOWN, node.name_start, None, is_path=True)
            name = node.name if node.name in self._names else semconv.UNKNOWN
            return Place(name, node.name_start, len(node.name), is_path=True)
        if isinstance(node, syntax.Function):
            name = node.name if node.name in FUNCTIONS else semconv.UNKNOWN
            return Place(name, node.name_start, len(node.name))
        if isinstance(node, syntax.Operation):
            return Place(node.operator, node.operator_start, len(node.operator))
        if isinstance(node, syntax.TypeOperation):
            return Place(node.operator, self._token_from(node.operand.end), len(node.operator))
        if isinstance(node, syntax.Sign):
            return Place(node.operator, self._token_from(node.start), 1)
        if isinstance(node, syntax.Indexer):
            return Place(semconv.INDEXER, self._token_from(node.input.end), 1)
        return None

    def _token_from(self, offset: int) -> int:
        """Where the next token begins that is no opening parenthesis."""
        found = _before_token(self._expression, offset)
        assert found is not None
        return found.end()


def _operands(node: syntax.Node) -> tuple[syntax.Node, ...]:
    """What an operator is applied to; nothing where that is the context."""
    if isinstance(node, syntax.Member | syntax.Function):
        return () if node.input is None else (node.input,)
    return (node.input,) if isinstance(node, syntax.Indexer) else syntax.children(node)


def _counted(evaluate: Evaluate, consumer: Mark) -> Evaluate:
    def counted(context: Context, this: Items) -> Items:
        items = evaluate(context, this)
        consumer.input_count += len(items)
        return items

    return counted


def _timed(
    evaluate: Evaluate, marks: OperatorMarks, mark: Mark, consumer: Mark | None, *, of_context: bool
) -> Evaluate:
    consumer = consumer or Mark(mark.place)  # of the whole expression, whose consumer is not asked about

    def timed(context: Context, this: Items) -> Items:
        if of_context:
            mark.input_count += len(this)
        outer_ns, marks.nested_ns = marks.nested_ns, 0
        started_ns = perf_counter_ns()
        try:
            items = evaluate(context, this)
            count = len(items)
            mark.output_count += count
            consumer.input_count += count
            return items
        finally:
            whole_ns = perf_counter_ns() - started_ns
            mark.calls += 1
            mark.active_ns += whole_ns - marks.nested_ns
            marks.nested_ns = outer_ns + whole_ns

    return timed
