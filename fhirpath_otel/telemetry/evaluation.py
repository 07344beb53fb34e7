"""The notes of one evaluation, and what a sampler and the recorder say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING

from fhirpath_otel import semconv

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

    from fhirpath_otel.telemetry.database_memory import DatabaseMemory
    from fhirpath_otel.telemetry.finding import Finding
    from fhirpath_otel.telemetry.memory_sampler import Track
    from fhirpath_otel.telemetry.operators import OperatorTime
    from fhirpath_otel.telemetry.redaction import Template
    from fhirpath_otel.telemetry.under_way import UnderWay
    from fhirpath_otel.telemetry.watch import Known, Watch
    from fhirpath_otel.telemetry.watches import Caller

Stage = tuple[str, int, int]
"""A stage that ran: its name, start and end."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a sampler says: keep the trace or not, why, and how many evaluations a kept one stands for.

    `threshold` is that of the reason itself, in terms of `tracestate.py`: 0 where it keeps all that it is a reason for;
    None where the trace was kept by chance that its randomness does not tell. `randomness` is what a new trace's id
    shall end in.
    """

    kept: bool
    reason: str
    adjusted_count: float = 1.0
    threshold: int | None = 0
    randomness: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an evaluation's trace: `decision` is kept, suppressed or dropped, `reason` says why.

    `trace_id` is None unless it was kept; `f"{trace_id:032x}"` is its usual form.
    """

    kept: bool
    decision: str
    reason: str
    trace_id: int | None = None


class Evaluation:
    """The notes of one evaluation; who evaluates fills in what it knows. Times are of `perf_counter_ns`.

    `stages` takes a tuple (stage, start, end) per stage, also for the one that failed, which then is the last.
    A result that is fetched bit by bit also says how long the database (`sql_active_ns`) and the memory engine
    (`in_memory_active_ns`) really worked, and how long the consumer had the word (`consumer_ns`): a stage's span
    lasts until the result is exhausted or closed, but the consumer's time is neither the stage's nor the
    evaluation's duration. `obstacle` is the place in the expression of what the database could not express, if that is
    why it is evaluated in memory. `resource_type` and the collection of `statement_summary` are shown only where the
    model knows them. `compiled_before` says that nothing had to be compiled. `operators` are those of
    `telemetry.operators.gravest`, where `detail` asks for them.

    `premade` is what the span of its SQL will be, if a driver was told that already, `sql_written` whether it was made;
    `randomness` is that of a new trace's id, if it has one already.

    `detail` says how much of it is recorded; one that is `in_turn` is recorded in more detail than others, and takes
    longer by that. One that has its watch as
    `ordinary` need not be judged, unless it turns out otherwise; `aside` has that, and `unexpected`, while more is to
    be done at its end than counting. `drawn` says whether the
    baseline chose it before it began; None where that is still to be decided.
    """

    # Slots, and not defaults of the class: an instance with so many attributes gets a dictionary of its own, in which
    # each of the 25 that every evaluation sets takes 0.2 µs more to put where caches are cold.
    __slots__ = (
        "analysed",
        "aside",
        "cache_hit",
        "caller",
        "compiled_before",
        "consumer_ns",
        "context",
        "database_memory",
        "database_memory_peak",
        "database_temp_peak",
        "db_system",
        "detail",
        "dimensions",
        "drawn",
        "duration_ns",
        "end_ns",
        "engine_name",
        "engine_version",
        "error_type",
        "execution_mode",
        "expression",
        "fhir_version",
        "findings",
        "from_caller",
        "in_memory_active_ns",
        "in_turn",
        "is_owned",
        "known",
        "memory_track",
        "obstacle",
        "operators",
        "ordinary",
        "outcome",
        "premade",
        "randomness",
        "resource_type",
        "result_count",
        "rss_delta",
        "rss_growth",
        "rss_peak",
        "rss_start",
        "sql_active_ns",
        "sql_written",
        "stages",
        "start_ns",
        "statement_summary",
        "template",
        "under_way",
        "unexpected",
        "unpaid",
        "watch",
    )

    def __init__(self, context: Context | None = None) -> None:
        # First, as the finalizer asks for them.
        self.outcome: Outcome | None = None
        self.under_way: UnderWay | None = None  # where it is counted until it is finished, or forgotten
        self.context = context
        self.stages: list[Stage] = []
        self.expression: str | None = None
        self.template: Template | None = None
        self.engine_name = semconv.SCOPE
        self.engine_version: str | None = None
        self.fhir_version: str | None = None
        self.resource_type: str | None = None
        self.execution_mode: str | None = None
        self.obstacle: tuple[int, int] | None = None
        self.cache_hit: bool | None = None
        self.compiled_before = False
        self.db_system: str | None = None
        self.statement_summary: str | None = None
        self.database_memory: DatabaseMemory | None = None
        self.result_count: int | None = None
        self.sql_active_ns: int | None = None
        self.in_memory_active_ns: int | None = None
        self.consumer_ns: int | None = None
        self.operators: tuple[OperatorTime, ...] = ()
        self.is_owned = False  # by who ends it in any case, also when it is collected as garbage

        # Filled in before it is executed.
        self.from_caller: Caller | None = None
        self.known: Known | None = None
        self.unexpected: Known | None = None
        self.watch: Watch | None = None
        self.ordinary: Watch | None = None
        self.aside: tuple[Watch | None, Known | None] | None = None
        self.detail = semconv.STAGE_DETAIL
        self.in_turn = self.unpaid = False
        self.drawn: bool | None = None
        self.premade: SpanContext | None = None
        self.randomness: int | None = None

        # Bytes, filled in for those that lasted 50 ms or more, where they were watched (`memory_sampler.py`).
        self.memory_track: Track | None = None
        self.rss_start: int | None = None
        self.rss_delta: int | None = None
        self.rss_peak: int | None = None
        self.rss_growth: int | None = None
        self.database_memory_peak: int | None = None
        self.database_temp_peak: int | None = None

        # Filled in when the recorder finishes it.
        self.end_ns = self.duration_ns = 0
        self.caller: SpanContext | None = None
        self.dimensions: tuple[tuple[str, str], ...] = ()
        self.analysed = self.sql_written = False
        self.findings: tuple[Finding, ...] = ()
        self.error_type: str | None = None
        self.start_ns = perf_counter_ns()

    def __del__(self) -> None:
        # This costs an evaluation 50 ns, a weak reference with a callback 130 ns.
        if self.outcome is None and self.under_way is not None and not self.is_owned:
            self.under_way.forget(self)

    def stage_durations(self) -> dict[str, int]:
        """Nanoseconds each stage was active, in the order of the stages."""
        return active_durations(self.stages, self.sql_active_ns, self.in_memory_active_ns)

    def active_ns(self) -> int:
        """Nanoseconds from begin to end without the consumer's."""
        consumer_ns = self.unread_ns() if self.consumer_ns is None else self.consumer_ns
        return self.end_ns - self.start_ns - consumer_ns

    def unread_ns(self) -> int:
        """The consumer's time where nobody noted it: what the SQL stage lasted beyond its activity."""
        if self.sql_active_ns is None or self.execution_mode == semconv.IN_MEMORY:
            return 0
        lasted = sum(end - start for stage, start, end in self.stages if stage == semconv.SQL)
        return max(0, lasted - self.sql_active_ns)


def active_durations(
    stages: Sequence[Stage], sql_active_ns: int | None, in_memory_active_ns: int | None
) -> dict[str, int]:
    """Nanoseconds each of these stages was active; the last two say it for SQL and memory, where they know."""
    durations = {stage: end_ns - start_ns for stage, start_ns, end_ns in stages}
    if len(durations) < len(stages):  # Rare: a stage ran more than once.
        durations = dict.fromkeys(durations, 0)
        for stage, start_ns, end_ns in stages:
            durations[stage] += end_ns - start_ns
    if sql_active_ns is not None and semconv.SQL in durations:
        durations[semconv.SQL] = sql_active_ns
    if in_memory_active_ns is not None and semconv.IN_MEMORY in durations:
        durations[semconv.IN_MEMORY] = in_memory_active_ns
    return durations
