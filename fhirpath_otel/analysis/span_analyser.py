"""The rules, asked about ended spans that belong together: anybody's, as far as they carry names that are known.

Evaluations among them are judged like those of our recorder. Statements of other instrumentations are counted by their
text, with every literal taken out, or by their summary; only hashes of them are kept, and only here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fhirpath_otel import semconv
from fhirpath_otel.analysis.analyser import Analyser, gravest_first
from fhirpath_otel.analysis.rules import Record, Repeats, n_plus_one
from fhirpath_otel.analysis.thresholds import Thresholds
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.span_evaluations import EndedSpan, duration_ns, evaluations_in

_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")
_MAX_TEXT = 4_000


class SpanAnalyser:
    """The findings about spans below one root, which is among them. Threads may share it."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._thresholds = thresholds or Thresholds()
        self._analyse = Analyser(self._thresholds)

    def __call__(
        self, spans: Sequence[EndedSpan], known: tuple[EndedSpan, Evaluation] | None = None
    ) -> tuple[Finding, ...]:
        """What the rules find, the gravest first, each rule once. For `known` see `evaluations_in`."""
        evaluations = evaluations_in(spans, known)
        found = [finding for evaluation in evaluations for finding in self._analyse(evaluation)]
        repeated = self._repeated_statement(spans)
        if repeated is not None:
            found.append(repeated)
        each_once: dict[str, Finding] = {}
        for finding in gravest_first(found):
            each_once.setdefault(finding.rule, finding)
        return tuple(each_once.values())

    def _repeated_statement(self, spans: Sequence[EndedSpan]) -> Finding | None:
        """The statement that other instrumentations' spans tell most often, if that is a loop."""
        counts: dict[int, Repeats] = {}
        for span in spans:
            statement = _statement(span)
            if statement is not None:
                times, seconds = counts.get(statement, (0, 0.0))
                counts[statement] = Repeats(times + 1, seconds + duration_ns(span) / 1e9)
        if not counts:
            return None
        most = max(counts.values())
        record = Record(duration=most.seconds, executions=most, complete=True)
        return n_plus_one(record, self._thresholds)


def _statement(span: EndedSpan) -> int | None:
    """The hash of a statement; None for what is none, and for our own, which is counted with its evaluation."""
    attributes = span.attributes or {}
    if semconv.STAGE.name in attributes:
        return None
    for name in semconv.STATEMENT_TEXTS:
        text = attributes.get(name)
        if isinstance(text, str) and text:
            return hash(_LITERAL.sub("?", text[:_MAX_TEXT]))
    summary = attributes.get(semconv.DB_QUERY_SUMMARY.name)
    return hash(summary) if isinstance(summary, str) and summary else None
