"""The bottleneck rules that one span decides, as statements; thresholds, severities and advice are the package's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.analysis.rules import ADVICE
from tools.collector_config.ottl import path, text

if TYPE_CHECKING:
    from fhirpath_otel.analysis.thresholds import Thresholds

ONE_SPAN_RULES = (semconv.PARSE_DOMINATES, semconv.TYPE_CHECK_DOMINATES, semconv.IN_MEMORY_FALLBACK)
"""The rules that one span decides, in the order of `semconv.RULES`."""

SEVERAL_SPANS_RULES = (semconv.PARSE_REPEATED, semconv.N_PLUS_ONE)
"""The rules about repetition, which only the process that repeats can count."""

SECONDS = 'span.cache["seconds"]'


def rule_statements(thresholds: Thresholds) -> list[str]:
    """Notes what mending each bottleneck would save, or -1 where there is none; then marks the span."""
    rules = path("span", semconv.BOTTLENECK_RULES.name)
    return [
        f"set({SECONDS}, (span.end_time_unix_nano - span.start_time_unix_nano) / 1000000000.0)",
        *(f"set({_saving(rule)}, -1.0)" for rule in ONE_SPAN_RULES),
        _dominates(semconv.PARSE_DOMINATES, semconv.PARSE, thresholds),
        _dominates(semconv.TYPE_CHECK_DOMINATES, semconv.TYPE_CHECK, thresholds),
        _falls_back(thresholds),
        *_severities(thresholds),
        *_gravest_first(),
        f"set({path('span', semconv.BOTTLENECK_RULE.name)}, {rules}[0]) where {rules} != nil",
    ]


def _saving(rule: str) -> str:
    return f"span.cache[{text(rule)}]"


def _duration(stage: str) -> str:
    return path("span", semconv.STAGE_DURATION_ATTRIBUTE.name.replace("{stage}", stage))


def _is_long(thresholds: Thresholds) -> str:
    return f"{SECONDS} >= {max(thresholds.floor, 1e-9)!r}"


def _dominates(rule: str, stage: str, thresholds: Thresholds) -> str:
    spent = _duration(stage)
    return (
        f"set({_saving(rule)}, Double({spent})) where {spent} != nil and {_is_long(thresholds)}"
        f" and Double({spent}) > {SECONDS} * {thresholds.dominating_share!r}"
    )


def _falls_back(thresholds: Thresholds) -> str:
    spent = _duration(semconv.IN_MEMORY)
    return (
        f"set({_saving(semconv.IN_MEMORY_FALLBACK)}, Double({spent}) * {thresholds.in_memory_saving!r})"
        f" where {path('span', semconv.FALLBACK_POSITION.name)} != nil and {spent} != nil"
        f" and {_is_long(thresholds)} and Double({spent}) > 0.0"
    )


def _severities(thresholds: Thresholds) -> list[str]:
    least = {
        semconv.INFO: 0.0,
        semconv.WARNING: thresholds.little_saving,
        semconv.CRITICAL: thresholds.great_saving,
    }
    return [
        f"set({path('span', semconv.BOTTLENECK_SEVERITY.name)}, {text(severity)}) where "
        + " or ".join(f"{_saving(rule)} >= {seconds!r}" for rule in ONE_SPAN_RULES)
        for severity, seconds in least.items()
    ]


def _gravest_first() -> list[str]:
    """Appends the rule that would save most and takes it out, as often as there are rules."""
    statements: list[str] = []
    for rule in ONE_SPAN_RULES * len(ONE_SPAN_RULES):
        saving = _saving(rule)
        others = (f"{saving} >= {_saving(other)}" for other in ONE_SPAN_RULES if other != rule)
        is_most = " and ".join([f"{saving} >= 0.0", *others])
        statements += [
            f"append({path('span', semconv.BOTTLENECK_RULES.name)}, {text(rule)}) where {is_most}",
            f"append({path('span', semconv.BOTTLENECK_ADVICE.name)}, {text(ADVICE[rule])}) where {is_most}",
            f"set({saving}, -1.0) where {is_most}",
        ]
    return statements
