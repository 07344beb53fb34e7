"""The result of an evaluation: fetched as it is read; its end is the end of the evaluation."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib import import_module
from itertools import chain
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from fhirpath_otel import semconv
from fhirpath_otel.errors import EvaluationError, FhirpathOtelError
from fhirpath_otel.evaluator.plan import SeveralItems

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.operators import OperatorTime
    from fhirpath_otel.telemetry.recorder import Evaluation, Outcome, Recorder

Row = tuple[str, Any]


class Rows(Protocol):
    """Rows of (resource id, value) in batches."""

    @property
    def sql_active_ns(self) -> int:
        """How long the database has worked for them so far."""

    @property
    def in_memory_active_ns(self) -> int | None:
        """How long the in-memory engine has worked, where it does."""

    @property
    def operators(self) -> tuple[OperatorTime, ...]:
        """What the operators of the expression did so far, where that is noted."""

    def batches(self) -> Iterator[list[Row]]:
        """Raises SeveralItems, and what a database raises."""

    def close(self) -> None:
        """Lets go of what the database holds for them."""


def several_items(expression: str, error: SeveralItems) -> EvaluationError:
    """The error for the reader, with the place in the expression."""
    message = "several items where the specification allows one"
    return EvaluationError(message, expression, error.start, error.end)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an expression was evaluated. `stages` are (name, seconds) pairs; `rows` counts the items read so far."""

    expression: str
    resource_type: str
    result_type: str
    mode: str
    reason: str | None
    sql: str | None
    parameter_count: int
    cache_hit: bool
    stages: tuple[tuple[str, float], ...] = ()
    rows: int = 0

    def __str__(self) -> str:
        mode = self.mode if self.reason is None else f"{self.mode} ({self.reason})"
        lines = [
            f"expression  {self.expression}",
            f"result      {self.result_type} for each {self.resource_type}, {self.rows} rows",
            f"mode        {mode}",
        ]
        if self.sql is not None:
            lines.append(f"sql         {self.sql}")
        lines.extend(f"{name:<11} {seconds * 1e3:.3f} ms" for name, seconds in self.stages)
        return "\n".join(lines)


class Result:
    """The items of an evaluation, as (resource id, FHIR JSON value) pairs in the order of resources and of items.

    A value is str, bool, int, Decimal (with the digits of the source) or, for complex types, dict. It is read once,
    like a cursor: by iterating, or by `fetchall`, `arrow` or `df`. A primitive that has extensions but no value is
    not an item here. What is not read to the end should be closed; a `with` block does it. Not to be shared by threads.

    Reading raises EvaluationError where the data breaks a rule of the specification.
    """

    def __init__(
        self,
        rows: Rows,
        explanation: Explanation,
        evaluation: Evaluation,
        recorder: Recorder,
        started_ns: int,
    ) -> None:
        self._rows = rows
        self._explanation = explanation
        self._evaluation = evaluation
        self._recorder = recorder
        self._started_ns = started_ns
        self._count = 0
        self._consumer_ns = 0
        evaluation.is_owned = True
        self._handed_ns: int | None = perf_counter_ns()  # None while the next batch is being made
        self._batches = rows.batches()
        self._reading = self._read()
        self._rows_left: Iterator[Row] = chain.from_iterable(self._reading)

    @property
    def mode(self) -> str:
        """`sql` or `memory`."""
        return self._explanation.mode

    @property
    def mode_reason(self) -> str | None:
        """Why it was evaluated in memory; None for SQL."""
        return self._explanation.reason

    @property
    def sampling(self) -> Outcome | None:
        """What became of the trace, and why; None until the result is exhausted or closed."""
        return self._evaluation.outcome

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits, where the trace was kept; None until the result is exhausted or closed."""
        outcome = self._evaluation.outcome
        return None if outcome is None or outcome.trace_id is None else f"{outcome.trace_id:032x}"

    def __iter__(self) -> Iterator[Row]:
        return self._rows_left

    def fetchall(self) -> list[Row]:
        """All rows that are left."""
        return list(self._rows_left)

    def arrow(self) -> Any:
        """A `pyarrow.Table` of `id` and `value`: boolean, int64, decimal or string; other values are JSON text.

        Raises FhirpathOtelError, with nothing read, where pyarrow is not installed.
        """
        pa = _extra("pyarrow")
        rows = self.fetchall()
        values = [value for _, value in rows]
        kinds = {type(value) for value in values}
        if not kinds <= {bool} and not kinds <= {int} and not kinds <= {Decimal}:
            values = [value if isinstance(value, str) else _json_text(value) for value in values]
        return pa.table({"id": pa.array([row[0] for row in rows], pa.string()), "value": values})

    def df(self) -> Any:
        """A `pandas.DataFrame` of `id` and `value`, with the values as Python objects.

        Raises FhirpathOtelError, with nothing read, where pandas is not installed.
        """
        pd = _extra("pandas")
        return pd.DataFrame(self.fetchall(), columns=["id", "value"], dtype=object)

    def explain(self) -> Explanation:
        """The SQL or why there is none, and the seconds of each stage; complete when the result is exhausted."""
        durations = self._evaluation.stage_durations()
        stages = tuple((name, nanoseconds / 1e9) for name, nanoseconds in durations.items())
        return replace(self._explanation, stages=stages, rows=self._count)

    def close(self) -> None:
        """Ends the evaluation; what was not read is dropped."""
        self._reading.close()
        self._rows_left = iter(())
        self._finish(None)

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_reading") and self._evaluation.outcome is None:
            # Collected as garbage at any moment, perhaps while this thread holds a lock of telemetry: judged later.
            self._reading.close()
            self._note_end(None)
            self._recorder.finish_later(self._evaluation)
            self._rows.close()

    def _read(self) -> Generator[list[Row], None, None]:
        while True:
            self._take_over()
            try:
                batch = next(self._batches, None)
            except SeveralItems as error:
                self._finish(EvaluationError.error_type)
                raise several_items(self._explanation.expression, error) from None
            except BaseException as error:
                self._finish(getattr(error, "error_type", type(error).__name__))
                raise
            self._handed_ns = perf_counter_ns()
            if batch is None:
                break
            self._count += len(batch)
            yield batch
        self._finish(None)

    def _take_over(self) -> None:
        """The consumer's time ends here."""
        if self._handed_ns is not None:
            self._consumer_ns += perf_counter_ns() - self._handed_ns
            self._handed_ns = None

    def _finish(self, error_type: str | None) -> None:
        if self._evaluation.outcome is not None:
            return
        self._note_end(error_type)
        self._recorder.finish(self._evaluation, error_type)
        self._rows.close()

    def _note_end(self, error_type: str | None) -> None:
        evaluation = self._evaluation
        self._take_over()
        ended_ns = perf_counter_ns()
        evaluation.consumer_ns = self._consumer_ns
        evaluation.result_count = self._count
        evaluation.sql_active_ns = self._rows.sql_active_ns
        evaluation.in_memory_active_ns = self._rows.in_memory_active_ns
        evaluation.operators = self._rows.operators
        stages = [semconv.SQL]
        if evaluation.in_memory_active_ns is not None:
            # An error belongs to the last stage: to the engine, unless the database raised it.
            by_engine = error_type == EvaluationError.error_type
            stages = [semconv.SQL, semconv.IN_MEMORY] if by_engine else [semconv.IN_MEMORY, semconv.SQL]
        evaluation.stages.extend((stage, self._started_ns, ended_ns) for stage in stages)


def _extra(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise FhirpathOtelError(
            f"this needs {name}, which is not installed: pip install 'fhirpath-otel[arrow]'"
        ) from error


def _json_text(value: Any) -> str:
    import msgspec

    return msgspec.json.Encoder(decimal_format="number").encode(value).decode()
