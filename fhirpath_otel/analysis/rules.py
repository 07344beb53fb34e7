"""The bottleneck rules: pure functions from what is known of one evaluation to at most one finding.

Anything that remembers is outside (`analyser.py`), so that the same rules judge records, spans and stored traces.
A rule's docstring says when it fires; `docs/rules.md` is generated from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fhirpath_otel import semconv
from fhirpath_otel.analysis.thresholds import Thresholds
from fhirpath_otel.telemetry.finding import Finding


class Repeats(NamedTuple):
    """How often something happened lately, this time included, and the seconds all of them took."""

    times: int
    seconds: float


NEVER = Repeats(0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the rules see of an evaluation that succeeded. Times are in seconds.

    `length` is the expression's, in characters. `cold` evaluations are the first of their expression. `obstacle` is the
    place of what SQL could not express, if the evaluation fell back to memory. `parses` counts those of the same text,
    `executions` those of the same statement below the same span of the caller; `complete` says that no more can come.
    """

    duration: float
    stages: Mapping[str, float] = field(default_factory=dict)
    length: int = 0
    cold: bool = False
    obstacle: tuple[int, int] | None = None
    parses: Repeats = NEVER
    executions: Repeats = NEVER
    complete: bool = False


Rule = Callable[[Record, Thresholds], Finding | None]

ADVICE: Mapping[str, str] = {
    semconv.PARSE_DOMINATES: "Keep the text of the expression the same and pass what varies as data: a text that was"
    " parsed before comes from the cache.",
    semconv.TYPE_CHECK_DOMINATES: "Evaluate the same text again instead of a new one each time, and load data before"
    " evaluating: what is compiled stays valid until data or text change.",
    semconv.IN_MEMORY_FALLBACK: "Rewrite the part of the expression that SQL cannot express; the explanation of the"
    " result names it and its place.",
    semconv.PARSE_REPEATED: "Compile the expression once and keep it, or enlarge the parser's cache:"
    " PARSER_CACHE_ENTRIES and PARSER_CACHE_BYTES.",
    semconv.N_PLUS_ONE: "Evaluate once for all resources instead of once for each: the result says which resource each"
    " value is from.",
}


def parse_dominates(record: Record, thresholds: Thresholds) -> Finding | None:
    """Parsing takes more than `dominating_share` of an evaluation that is not the first of its expression."""
    return _dominates(semconv.PARSE_DOMINATES, semconv.PARSE, record, thresholds)


def type_check_dominates(record: Record, thresholds: Thresholds) -> Finding | None:
    """The type check takes more than `dominating_share` of an evaluation that is not the first of its expression."""
    return _dominates(semconv.TYPE_CHECK_DOMINATES, semconv.TYPE_CHECK, record, thresholds)


def in_memory_fallback(record: Record, thresholds: Thresholds) -> Finding | None:
    """SQL could not express a part of the expression, so that an engine evaluated it in memory; nobody asked for it."""
    seconds = record.stages.get(semconv.IN_MEMORY, 0.0)
    if record.obstacle is None or record.duration < thresholds.floor or seconds <= 0:
        return None
    evidence = {"duration": record.duration, "in_memory.duration": seconds}
    saving = seconds * thresholds.in_memory_saving
    severity = _severity(saving, thresholds)
    return Finding(
        semconv.IN_MEMORY_FALLBACK,
        severity,
        semconv.IN_MEMORY,
        *record.obstacle,
        evidence,
        saving,
        ADVICE[semconv.IN_MEMORY_FALLBACK],
    )


def parse_repeated(record: Record, thresholds: Thresholds) -> Finding | None:
    """The same text was parsed `repeated_parses` times in `repeated_parses_window`: the cache is off or too small."""
    times, seconds = record.parses
    if not reached(times, thresholds.repeated_parses) or seconds < thresholds.floor:
        return None
    share = record.stages.get(semconv.PARSE, 0.0) / record.duration if record.duration > 0 else 0.0
    evidence = {"parses": float(times), "parse.duration": seconds, "share": share}
    saving = seconds * (times - 1) / times
    severity = semconv.INFO if share < thresholds.repeated_parse_share else _severity(saving, thresholds)
    return Finding(
        semconv.PARSE_REPEATED,
        severity,
        semconv.PARSE,
        0,
        record.length,
        evidence,
        saving,
        ADVICE[semconv.PARSE_REPEATED],
    )


def n_plus_one(record: Record, thresholds: Thresholds) -> Finding | None:
    """The same statement was executed `repeated_executions` times below one span of the caller."""
    times, seconds = record.executions
    least = max(thresholds.repeated_executions, 1)
    enough = times >= least if record.complete else reached(times, least)
    if not enough or seconds < thresholds.floor:
        return None
    evidence = {"executions": float(times), "sql.duration": seconds}
    saving = seconds * (times - 1) / times
    severity = _severity(saving, thresholds)
    return Finding(
        semconv.N_PLUS_ONE,
        severity,
        semconv.SQL,
        0,
        record.length,
        evidence,
        saving,
        ADVICE[semconv.N_PLUS_ONE],
    )


RULES: tuple[Rule, ...] = (
    parse_dominates,
    type_check_dominates,
    in_memory_fallback,
    parse_repeated,
    n_plus_one,
)


def _dominates(rule: str, stage: str, record: Record, thresholds: Thresholds) -> Finding | None:
    seconds = record.stages.get(stage, 0.0)
    if record.cold or record.duration < max(thresholds.floor, 1e-9):
        return None
    share = seconds / record.duration
    if share <= thresholds.dominating_share:
        return None
    evidence = {"duration": record.duration, f"{stage}.duration": seconds, "share": share}
    return Finding(
        rule, _severity(seconds, thresholds), stage, 0, record.length, evidence, seconds, ADVICE[rule]
    )


def reached(times: int, least: int) -> bool:
    """Whether this is the `least`-th time, or that doubled so often: a loop of a thousand says it seven times."""
    multiple, rest = divmod(times, max(least, 1))
    return rest == 0 and multiple > 0 and multiple & (multiple - 1) == 0


def _severity(saving: float, thresholds: Thresholds) -> str:
    if saving < thresholds.little_saving:
        return semconv.INFO
    return semconv.WARNING if saving < thresholds.great_saving else semconv.CRITICAL
