"""One evaluation from its text to its rows: parse, type check, collection (the plan), then SQL or memory.

Every stage is noted in the recorder with its real boundaries. The result is fetched as it is read, so the evaluation
ends when its result is exhausted or closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import length_hint
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from fhirpath_otel import semconv
from fhirpath_otel.errors import DatabaseError, EvaluationError, ExpressionTypeError, UsageError
from fhirpath_otel.evaluator import memory
from fhirpath_otel.evaluator.bounded_cache import BoundedCache
from fhirpath_otel.evaluator.driver_rows import DriverRows
from fhirpath_otel.evaluator.lowering import lower
from fhirpath_otel.evaluator.model import FHIR_VERSION, load_model
from fhirpath_otel.evaluator.parser import cached_parse
from fhirpath_otel.evaluator.plan import NotExpressible, Plan, SeveralItems
from fhirpath_otel.evaluator.result import Explanation, Result, Rows, several_items
from fhirpath_otel.evaluator.template import expression_template
from fhirpath_otel.evaluator.typecheck import TypedExpression, check
from fhirpath_otel.telemetry.driver_context import DRIVERS
from fhirpath_otel.telemetry.watch import Known

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.database_memory import DatabaseMemory
    from fhirpath_otel.telemetry.recorder import Evaluation, Recorder
    from fhirpath_otel.telemetry.redaction import Template

MODES = ("auto", "sql", "memory")


class Statement(Protocol):
    """What a printer made of a plan."""

    @property
    def text(self) -> str:
        """The SQL, without any value."""

    @property
    def parameters(self) -> tuple[Any, ...]:
        """The values for its placeholders."""

    @property
    def summary(self) -> str:
        """The value of `db.query.summary`."""


class Database(Protocol):
    """What the pipeline needs of a database."""

    system: str
    """The value of `db.system.name`."""

    recorder: Recorder
    compiled: CompiledCache

    @property
    def memory(self) -> DatabaseMemory | None:
        """Tells what memory it uses, if it lives in this process."""

    def data_version(self) -> int:
        """Changes whenever the loaded data may have changed."""

    def resource_types(self) -> frozenset[str]:
        """The resource types that are loaded."""

    def print(self, plan: Plan) -> Statement:
        """The statement for a plan. Raises NotExpressible."""

    def execute(self, statement: Any) -> Rows:
        """Starts a statement that `print` made."""

    def resources(self, resource_type: str) -> Rows:
        """The (id, text) of every resource of a type."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression that is ready to run: as a `statement`, or `in_memory` with the `reason` why.

    `obstacle` is the place of what SQL cannot express, if that is the reason. `known` is the recorder's.
    """

    result_type: str
    resource_type: str
    template: Template
    statement: Statement | None
    in_memory: memory.InMemory | None
    reason: str | None
    obstacle: tuple[int, int] | None = None
    known: Known = field(default_factory=Known)

    def size(self, expression: str) -> int:
        """About the bytes that it takes: measured at 1.3 to 1.8 MB for 60 kB of text, nearly all of them literals."""
        return 2_000 + 40 * len(expression)


CompiledCache = BoundedCache[tuple[Any, ...], Compiled]


def evaluate(
    database: Database, expression: str, *, resource_type: str | None = None, mode: str = "auto"
) -> Result:
    """Evaluates `expression` for every resource of its root type, or of `resource_type`.

    Raises ExpressionSyntaxError, ExpressionTypeError, UsageError, DatabaseError; EvaluationError comes now or when the
    result is read.
    """
    if not isinstance(expression, str):
        raise UsageError(f"an expression is a text, not {type(expression).__name__}")
    if not isinstance(resource_type, str | None):
        raise UsageError(f"resource_type is the name of a type or None, not {type(resource_type).__name__}")
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}; use one of {', '.join(MODES)}")
    recorder = database.recorder
    evaluation = recorder.begin()
    try:
        compiled = _compile(database, expression, resource_type, mode, evaluation)
        evaluation.db_system = database.system
        evaluation.database_memory = database.memory
        if compiled.statement is not None:
            evaluation.execution_mode = semconv.PUSHDOWN
            evaluation.statement_summary = compiled.statement.summary
        else:
            evaluation.execution_mode = semconv.IN_MEMORY
            evaluation.obstacle = compiled.obstacle
            evaluation.engine_name, evaluation.engine_version = memory.ENGINE, memory.engine_version()
            evaluation.statement_summary = f"SELECT {compiled.resource_type}"
        watch = compiled.known.last[1]
        if (
            watch is not None
            and watch.brief
            and length_hint(watch.passes) > watch.spare
            and not DRIVERS.active
        ):
            evaluation.unexpected = compiled.known
        else:
            recorder.expect(evaluation, compiled.known if evaluation.compiled_before else None)
        started_ns = perf_counter_ns()
        if compiled.statement is not None:
            rows = _started(evaluation, recorder, lambda: database.execute(compiled.statement))
        else:
            assert compiled.in_memory is not None
            resources = _started(evaluation, recorder, lambda: database.resources(compiled.resource_type))
            with_operators = evaluation.detail == semconv.OPERATOR_DETAIL
            rows = memory.MemoryRows(resources, compiled.in_memory, with_operators=with_operators)
    except SeveralItems as error:
        recorder.finish(evaluation, EvaluationError.error_type)
        raise several_items(expression, error) from None
    except BaseException as error:
        recorder.finish(evaluation, getattr(error, "error_type", type(error).__name__))
        raise
    return Result(rows, _explanation(expression, compiled, evaluation), evaluation, recorder, started_ns)


def _started(evaluation: Evaluation, recorder: Recorder, start: Callable[[], Rows]) -> Rows:
    """The rows of a statement; one that cannot even start is a SQL stage that failed."""
    started_ns = perf_counter_ns()
    try:
        parent = recorder.driver_parent(evaluation) if DRIVERS.active else None
        return start() if parent is None else DriverRows(parent, start)
    except BaseException:
        evaluation.stages.append((semconv.SQL, started_ns, perf_counter_ns()))
        raise


def _compile(
    database: Database, expression: str, resource_type: str | None, mode: str, evaluation: Evaluation
) -> Compiled:
    """The compiled expression, from the cache or made now; notes the stages that really ran."""
    evaluation.expression = expression
    evaluation.fhir_version = FHIR_VERSION
    started_ns = perf_counter_ns()
    key = (expression, resource_type, mode, database.data_version())
    compiled = database.compiled.get(key)
    if compiled is not None:
        evaluation.cache_hit = evaluation.compiled_before = True
        evaluation.stages.append((semconv.PARSE, started_ns, perf_counter_ns()))
    else:
        compiled = _compile_stages(database, expression, resource_type, mode, evaluation)
        database.compiled.put(key, compiled, compiled.size(expression))
    evaluation.template = compiled.template
    evaluation.resource_type = compiled.resource_type
    return compiled


def _compile_stages(
    database: Database, expression: str, resource_type: str | None, mode: str, evaluation: Evaluation
) -> Compiled:
    model = load_model()
    with _Stage(evaluation, semconv.PARSE):
        tree, evaluation.cache_hit = cached_parse(expression)
    evaluation.template = template = expression_template(tree, model)
    with _Stage(evaluation, semconv.TYPE_CHECK):
        typed = check(tree, expression, resource_type, model)
    evaluation.resource_type = typed.resource_type
    result_type = str(typed.result)
    with _Stage(evaluation, semconv.COLLECTION):
        root = _require_loaded(database, typed)
        statement, obstacle = (None, None) if mode == "memory" else _print(database, typed, root)
        if statement is not None:
            return Compiled(result_type, root, template, statement, None, None)
        if mode == "sql":
            assert obstacle is not None
            raise ExpressionTypeError(
                f"SQL cannot express {obstacle.operator} ({obstacle.reason})",
                expression,
                obstacle.start,
                obstacle.end,
                hint="use mode 'auto' or 'memory'",
            )
        in_memory = memory.compile_expression(typed)
        place = None if obstacle is None else (obstacle.start, obstacle.end)
        return Compiled(result_type, root, template, None, in_memory, str(obstacle or "as asked"), place)


def _print(
    database: Database, typed: TypedExpression, resource_type: str
) -> tuple[Statement | None, NotExpressible | None]:
    try:
        return database.print(lower(typed, resource_type, load_model())), None
    except NotExpressible as obstacle:
        return None, obstacle


class _Stage:
    """Notes a stage with its boundaries, also when it fails."""

    __slots__ = ("evaluation", "name", "started_ns")

    def __init__(self, evaluation: Evaluation, name: str) -> None:
        self.evaluation = evaluation
        self.name = name

    def __enter__(self) -> None:
        self.started_ns = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        self.evaluation.stages.append((self.name, self.started_ns, perf_counter_ns()))


def _require_loaded(database: Database, typed: TypedExpression) -> str:
    if typed.resource_type is None:
        raise UsageError(
            "the expression does not say which resources it is about: start it at a type (Patient.name), or give a"
            " resource type (--resource-type Patient, resource_type='Patient')"
        )
    loaded = database.resource_types()
    if typed.resource_type in loaded:
        return typed.resource_type
    if not loaded:
        raise DatabaseError("nothing is loaded in this database yet: fhirpath-otel load DATABASE PATH…")
    raise DatabaseError(
        f"no resources of type {typed.resource_type} are loaded; there are: {', '.join(sorted(loaded))}"
    )


def _explanation(expression: str, compiled: Compiled, evaluation: Evaluation) -> Explanation:
    statement = compiled.statement
    return Explanation(
        expression=expression,
        resource_type=compiled.resource_type,
        result_type=compiled.result_type,
        mode="memory" if statement is None else "sql",
        reason=compiled.reason,
        sql=None if statement is None else statement.text,
        parameter_count=0 if statement is None else len(statement.parameters),
        cache_hit=bool(evaluation.cache_hit),
    )
