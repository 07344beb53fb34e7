"""Asks the rules about each evaluation that ends, and remembers what they need to know of earlier ones.

Most evaluations are short and repeat nothing; about them no rule is asked. Texts and statements are remembered by
hash only.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhirpath_otel import semconv
from fhirpath_otel.analysis.recent import RecentCounts
from fhirpath_otel.analysis.rules import RULES, Record, Repeats, Rule, reached
from fhirpath_otel.analysis.thresholds import Thresholds
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.finding import Finding

MAX_TEXTS = 4_096
"""Texts whose parses are counted; more than the parser's cache holds by default, or its thrashing went unseen."""

MAX_EXPRESSIONS = 4_096
"""Expressions known not to be new."""

MAX_GROUPS = 1_024
"""Statements, each below one span of a caller, whose executions are counted."""

_RANK = {severity: rank for rank, severity in enumerate(semconv.SEVERITIES)}


def gravest_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By severity, then by what they would save."""
    return tuple(
        sorted(findings, key=lambda finding: (_RANK[finding.severity], finding.saving), reverse=True)
    )


class Analyser:
    """The findings of an evaluation. Threads may share it; its memory is bounded, at about 3 MB."""

    def __init__(self, thresholds: Thresholds | None = None, rules: tuple[Rule, ...] = RULES) -> None:
        self._thresholds = thresholds or Thresholds()
        self._rules = rules
        self._floor_ns = self._thresholds.floor * 1e9
        self._parses = RecentCounts(MAX_TEXTS, self._thresholds.repeated_parses_window * 1e9)
        self._expressions = RecentCounts(MAX_EXPRESSIONS)
        self._executions = RecentCounts(MAX_GROUPS)

    def __call__(self, evaluation: Evaluation) -> tuple[Finding, ...]:
        """What the rules find, the gravest first; nothing about an evaluation that failed."""
        if evaluation.error_type is not None:
            return ()
        compiled_before = evaluation.compiled_before
        is_short = evaluation.duration_ns < self._floor_ns
        if compiled_before and evaluation.caller is None and (is_short or evaluation.obstacle is None):
            return ()  # Most evaluations of a busy service: no rule can find anything.
        stages = evaluation.stage_durations()
        parses = self._count_parse(evaluation, stages)
        executions = self._count_execution(evaluation, stages)
        cold = not compiled_before and self._is_first(evaluation)
        if (
            is_short
            and not reached(parses[0], self._thresholds.repeated_parses)
            and not reached(executions[0], self._thresholds.repeated_executions)
        ):
            return ()
        record = Record(
            duration=evaluation.duration_ns / 1e9,
            stages={stage: active_ns / 1e9 for stage, active_ns in stages.items()},
            length=len(evaluation.expression or ""),
            cold=cold,
            obstacle=evaluation.obstacle,
            parses=Repeats(parses[0], parses[1] / 1e9),
            executions=Repeats(executions[0], executions[1] / 1e9),
        )
        found = [rule(record, self._thresholds) for rule in self._rules]
        return gravest_first(finding for finding in found if finding is not None)

    def may_find(self, evaluation: Evaluation, called: bool) -> bool:
        """Whether anything can be found in evaluations such as this one, when they succeed; `called` below a span.

        What is compiled, runs as it should and repeats nothing has no bottleneck that these rules know.
        """
        return not evaluation.compiled_before or evaluation.obstacle is not None or called

    def _count_parse(self, evaluation: Evaluation, stages: dict[str, int]) -> tuple[int, int]:
        if evaluation.cache_hit or evaluation.expression is None or semconv.PARSE not in stages:
            return 0, 0
        return self._parses.note(hash(evaluation.expression), stages[semconv.PARSE], evaluation.end_ns)

    def _count_execution(self, evaluation: Evaluation, stages: dict[str, int]) -> tuple[int, int]:
        caller, template = evaluation.caller, evaluation.template
        if caller is None or template is None or semconv.SQL not in stages:
            return 0, 0
        group = caller.trace_id, caller.span_id, template.hash, evaluation.resource_type
        return self._executions.note(group, stages[semconv.SQL], evaluation.end_ns)

    def _is_first(self, evaluation: Evaluation) -> bool:
        """Whether its expression was not evaluated before."""
        template = evaluation.template
        return template is None or self._expressions.note(template.hash, 0, evaluation.end_ns)[0] == 1
