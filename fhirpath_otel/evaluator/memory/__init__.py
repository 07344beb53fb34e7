"""The in-memory engine: fhirpathpy over one resource at a time, for what SQL cannot express.

It gives the same results as SQL where both can evaluate: `tree.py` evaluates paths and operands by our own
syntax tree and model, `functions.py` mends functions, and numbers are decimals that keep their digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, localcontext
from functools import cache
from importlib import metadata
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from fhirpath_otel.errors import EvaluationError, FhirpathOtelError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.plan import SeveralItems
from fhirpath_otel.evaluator.typecheck import TypedExpression
from fhirpath_otel.telemetry.operators import OperatorMarks, OperatorTime

if TYPE_CHECKING:
    from fhirpath_otel.evaluator.result import Row, Rows

ENGINE = "fhirpathpy"

EvaluateResource = Callable[[str], Iterator[Any]]
"""The JSON text of a resource → the items of the result, as FHIR JSON values."""

_DIGITS = 100  # of what is computed: 28 of each factor survive, and a quotient is rounded only once
_VARIABLES = {
    "ucum": "http://unitsofmeasure.org",
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
}


@cache
def engine_version() -> str:
    """The installed version of fhirpathpy."""
    return metadata.version(ENGINE)


@dataclass(frozen=True, slots=True)
class InMemory:
    """An expression that can be evaluated over the text of one resource; that raises EvaluationError and SeveralItems.

    `evaluate` just does it, `marked` gives a function that notes in marks what the operators do.
    """

    evaluate: EvaluateResource
    marked: Callable[[OperatorMarks], EvaluateResource]


def compile_expression(typed: TypedExpression) -> InMemory:
    """The evaluation of an expression.

    Raises FhirpathOtelError where fhirpathpy is not installed, and ExpressionTypeError for a function that nobody
    evaluates.
    """
    try:
        from fhirpathpy.engine.invocations import invocation_registry
        from fhirpathpy.engine.nodes import ResourceNode
        from fhirpathpy.models import models
    except ImportError as error:
        raise FhirpathOtelError(
            "this expression is evaluated in memory, which needs fhirpathpy: pip install 'fhirpath-otel[fhirpathpy]'"
        ) from error
    from fhirpath_otel.evaluator.memory.functions import invocations
    from fhirpath_otel.evaluator.memory.marked import marked
    from fhirpath_otel.evaluator.memory.tree import FailedError, compiled
    from fhirpath_otel.evaluator.memory.values import as_json

    model = load_model()
    ours = invocations(model)
    plain = compiled(typed, model, {"sort", *ours, *invocation_registry})
    shared = {"model": models["r4"], "userInvocationTable": ours, "traceFn": lambda *_: None}
    decimals = Context(prec=_DIGITS)
    # What is cached keeps these, and not the types of all nodes.
    tree, expression, resource_type = typed.tree, typed.expression, typed.resource_type

    def over_resources(evaluate: Callable[[dict[str, Any], list[Any]], list[Any]]) -> EvaluateResource:
        def items(raw: str) -> Iterator[Any]:
            root = [ResourceNode(json.loads(raw, parse_float=Decimal), resource_type)]
            variables = {**_VARIABLES, **dict.fromkeys(("context", "resource", "rootResource"), root)}
            context = {**shared, "dataRoot": root, "vars": variables, "now": datetime.now().astimezone()}
            try:
                with localcontext(decimals):
                    found = evaluate(context, root)
            except SeveralItems:
                raise
            except FailedError as failed:
                raise _failure(expression, failed.__cause__, failed.start, failed.end) from failed.__cause__
            except Exception as error:
                raise _failure(expression, error, 0, len(expression)) from error
            return (value for item in found if (value := as_json(item)) is not None)

        return items

    return InMemory(
        over_resources(plain),
        lambda marks: over_resources(marked(tree, expression, model, marks, plain)),
    )


class MemoryRows:
    """The items of every resource in `resources`, which are (id, text) rows. The order is theirs.

    With `with_operators` it is noted what the expression's operators do.
    """

    def __init__(self, resources: Rows, expression: InMemory, *, with_operators: bool = False) -> None:
        self._resources = resources
        self._marks = OperatorMarks() if with_operators else None
        self._evaluate = expression.evaluate if self._marks is None else expression.marked(self._marks)
        self.in_memory_active_ns = 0

    @property
    def sql_active_ns(self) -> int:
        """How long the database took to hand over the resources."""
        return self._resources.sql_active_ns

    @property
    def operators(self) -> tuple[OperatorTime, ...]:
        """What the operators did so far, if that is noted."""
        return () if self._marks is None else self._marks.times()

    def batches(self) -> Iterator[list[Row]]:
        """Raises EvaluationError."""
        for resources in self._resources.batches():
            started_ns = perf_counter_ns()
            try:
                batch = [row for id_, raw in resources for row in self._rows(id_, raw)]
            finally:
                self.in_memory_active_ns += perf_counter_ns() - started_ns
            yield batch

    def _rows(self, id_: str, raw: str) -> list[Row]:
        try:
            return [(id_, value) for value in self._evaluate(raw)]
        except EvaluationError as error:
            error.resource_id = id_
            raise

    def close(self) -> None:
        """Ends the reading of resources."""
        self._resources.close()


def _failure(expression: str, error: BaseException | None, start: int, end: int) -> EvaluationError:
    """An error of fhirpathpy: its messages quote values of resources, so ours names the kind of error only."""
    if isinstance(error, re.error):
        return EvaluationError("no regular expression", expression, start, end)
    return EvaluationError(f"evaluation in memory failed ({type(error).__name__})", expression, start, end)
