"""Decides about complete groups of spans by the recorder's own policies, and says what the kept ones are told.

A group is judged as one evaluation: its root's duration and error, the findings in all of it. Where the root is no
evaluation (`TAIL_SAMPLING=all`), the evaluations inside of it together, or without any its name, stand for the
expression; so "slow" and "first sighting" mean what is usual for such requests. Nothing of that is emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.sampling.group_state import Group, Key, Verdict
from fhirpath_otel.telemetry.redaction import Template, digest
from fhirpath_otel.telemetry.span_evaluations import (
    error_type,
    evaluation_of,
    is_evaluation,
    key_of,
    local_parent,
)
from fhirpath_otel.telemetry.spans import bottleneck_attributes
from fhirpath_otel.telemetry.tracestate import RANGE, incoming_threshold, randomness_of, threshold_in

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from fhirpath_otel.telemetry.evaluation import Decision, Evaluation
    from fhirpath_otel.telemetry.finding import Finding
    from fhirpath_otel.telemetry.span_counts import SpanCounts
    from fhirpath_otel.telemetry.span_evaluations import EndedSpan

    Known = tuple[EndedSpan, Evaluation]
    Analyse = Callable[[Sequence[EndedSpan], Known | None], tuple[Finding, ...]]
    Decide = Callable[[Evaluation], Decision]


@dataclass(frozen=True, slots=True)
class Mark:
    """What kept spans are told: `attributes` of their root, and the threshold of all, if it can be told.

    Without a `root` it is the span that has no parent in this process, which comes later.
    """

    root: Key | None
    attributes: dict[str, AttributeValue]
    threshold: int | None


def _unknown_sampler(_: EndedSpan) -> bool:
    return False


class GroupSampler:
    """The verdict about a group. Threads may share it. Never raises.

    `keeps_all` says whether the sampler that a root without a parent passed keeps everything; only then, or where that
    sampler told its own, a threshold can be told without claiming too much.
    """

    def __init__(
        self,
        decide: Decide,
        analyse: Analyse,
        counts: SpanCounts,
        keeps_all: Callable[[EndedSpan], bool] = _unknown_sampler,
    ) -> None:
        self._decide = decide
        self._analyse = analyse
        self._counts = counts
        self._keeps_all = keeps_all

    def __call__(self, group: Group[EndedSpan]) -> Verdict:
        """Whether the spans are kept, and what they are told then."""
        try:
            return self._judge(group)
        except Exception:  # noqa: BLE001 -- a failure of ours must not reach the program whose spans these are
            return Verdict(False, group.top, lost=semconv.INTERNAL_ERROR)

    def _judge(self, group: Group[EndedSpan]) -> Verdict:
        spans = list(group.spans.values())
        if not spans:
            return _kept_inside(group, {})
        root = _topmost(group, spans)
        evaluation = evaluation_of(root, spans, forced=group.forced)
        own = is_evaluation(root.attributes)
        if not own:
            _stand_for_evaluations(evaluation, root, spans)
        if evaluation.caller is None:
            evaluation.randomness = randomness_of(root.context)
        evaluation.findings = findings = self._find(spans, (root, evaluation) if own else None)
        self._counts.found(findings)
        found = {attribute.name: value for attribute, value in bottleneck_attributes(findings).items()}
        if group.kept_inside is not None:
            return _kept_inside(group, found)
        decision = self._decide(evaluation)
        if own:
            self._counts.decided(_outcome(decision), decision.reason)
        if not decision.kept:
            return Verdict(False, group.top)
        attributes: dict[str, AttributeValue] = {
            **found,
            semconv.SAMPLING_REASON.name: decision.reason,
            semconv.ADJUSTED_COUNT.name: decision.adjusted_count,
        }
        mark = Mark(key_of(root.context), attributes, self._threshold(root, evaluation, decision))
        return Verdict(True, group.top, mark, decision.reason)

    def _find(self, spans: Sequence[EndedSpan], known: Known | None) -> tuple[Finding, ...]:
        try:
            return self._analyse(spans, known)
        except Exception:  # noqa: BLE001 -- a rule that fails costs its findings only
            self._counts.failed(semconv.WHAT_FINDING)
            return ()

    def _threshold(self, root: EndedSpan, evaluation: Evaluation, decision: Decision) -> int | None:
        """The reason's threshold and that of whoever sampled before; None where one of them is not known."""
        if decision.threshold is None:
            return None
        if evaluation.caller is not None:
            before = incoming_threshold(evaluation.caller)
        else:
            before = threshold_in(root.context.trace_state)
            if before is None and self._keeps_all(root):
                before = 0
        return None if before is None else min(max(decision.threshold, before), RANGE - 1)


def _topmost(group: Group[EndedSpan], spans: Sequence[EndedSpan]) -> EndedSpan:
    """The group's top; where that has not come, the last of the spans without a parent among them."""
    if group.top in group.spans:
        return group.spans[group.top]
    tops = (span for span in reversed(spans) if local_parent(span.parent) not in group.spans)
    return next(tops, spans[-1])  # Parents may point at each other.


def _kept_inside(group: Group[EndedSpan], found: dict[str, AttributeValue]) -> Verdict:
    """Kept because of a trace further down; how many this one stands for is not known."""
    reason = group.kept_inside or semconv.OTHER
    root = group.top if group.top in group.spans else None
    return Verdict(True, group.top, Mark(root, {**found, semconv.SAMPLING_REASON.name: reason}, None), reason)


def _outcome(decision: Decision) -> str:
    if decision.kept:
        return semconv.KEPT
    return semconv.DROPPED if decision.reason == semconv.NOT_SELECTED else semconv.SUPPRESSED


def _stand_for_evaluations(evaluation: Evaluation, root: EndedSpan, spans: Sequence[EndedSpan]) -> None:
    inside = [span for span in spans if is_evaluation(span.attributes)]
    if evaluation.error_type is None:
        evaluation.error_type = next((told for span in inside if (told := error_type(span))), None)
    hashes = {str((span.attributes or {}).get(semconv.EXPRESSION_HASH.name)) for span in inside}
    evaluation.template = Template(None, digest(" ".join(sorted(hashes)) if hashes else root.name))
