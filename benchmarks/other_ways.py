"""Other ways of watching the same work: plain SDK spans, and a performance monitor such as fhir4ds's.

The monitor is written anew from the documented behaviour of that of fhir4ds 3: an operation is sampled at 10 %, and
at 1 % where there are more than 100 in a second; a sampled one reads the resident memory through psutil before and
after, and becomes a record in a history of 1,000 under a lock; its durations are kept by name, and compared with
thresholds. One operation an evaluation is what it costs at least.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
from opentelemetry import trace

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome

HISTORY = 1_000
BUSY_PER_SECOND = 100
BUSY_SHARE = 0.01
SLOW_MILLISECONDS = 100.0
LARGE_MEGABYTES = 100.0

_OUTCOME = Outcome(False, semconv.DROPPED, semconv.NO_SDK)


class NotesOnly:
    """In a recorder's place: takes the notes that the pipeline makes anyway, and does nothing with them."""

    def begin(self) -> Evaluation:
        """Empty notes."""
        return Evaluation()

    def expect(self, evaluation: Evaluation, known: object = None) -> None:
        """Nothing."""

    def finish_later(self, evaluation: Evaluation) -> None:
        """Nothing."""

    def finish(self, evaluation: Evaluation, error_type: str | None = None) -> Outcome:
        """Nothing."""
        evaluation.outcome = _OUTCOME
        return _OUTCOME


class PlainSpans(NotesOnly):
    """In a recorder's place: makes a span of each evaluation, and where they are wanted one of each stage."""

    def __init__(self, tracer: trace.Tracer, *, with_stages: bool) -> None:
        self._tracer = tracer
        self._with_stages = with_stages

    def finish_later(self, evaluation: Evaluation) -> None:
        """Nothing."""

    def finish(self, evaluation: Evaluation, error_type: str | None = None) -> Outcome:
        """Makes them, with the facts that one would look for."""
        offset_ns = time.time_ns() - time.perf_counter_ns()
        start = self._tracer.start_span
        root = start("evaluate", start_time=evaluation.start_ns + offset_ns)
        if evaluation.template is not None:
            root.set_attribute(semconv.EXPRESSION_HASH.name, evaluation.template.hash)
        root.set_attribute(semconv.ENGINE_NAME.name, evaluation.engine_name)
        if self._with_stages:
            context = trace.set_span_in_context(root)
            for stage, start_ns, end_ns in evaluation.stages:
                start(stage, context, start_time=start_ns + offset_ns).end(end_ns + offset_ns)
        root.end()
        return super().finish(evaluation, error_type)


def plain_spans(tracer: trace.Tracer, evaluate: Callable[[], Any], stage: str | None) -> Callable[[], object]:
    """`evaluate` within a span, and one for its only stage."""

    def root_only() -> None:
        with tracer.start_as_current_span("evaluate") as root:
            root.set_attribute(semconv.ENGINE_NAME.name, "fhirpathpy")
            evaluate()

    def with_stage() -> None:
        with tracer.start_as_current_span("evaluate") as root:
            root.set_attribute(semconv.ENGINE_NAME.name, "fhirpathpy")
            with tracer.start_as_current_span(stage or ""):
                evaluate()

    return root_only if stage is None else with_stage


@dataclass
class Operation:
    """What is remembered of a sampled operation."""

    name: str
    started: float
    ended: float
    milliseconds: float
    megabytes_before: float
    megabytes_after: float
    context: dict[str, Any] = field(default_factory=dict)


class Monitor:
    """Samples a `share` of operations, and a smaller one where there are many if it is `adaptive`."""

    def __init__(self, share: float = 0.1, *, adaptive: bool = True) -> None:
        self._share = share
        self._adaptive = adaptive
        self._process = psutil.Process()
        self._lock = threading.RLock()
        self._running: dict[str, tuple[str, float, float, dict[str, Any]]] = {}
        self._history: deque[Operation] = deque(maxlen=HISTORY)
        self._durations: dict[str, list[float]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)
        self._second_began = time.time()
        self.slow = 0

    def watched(self, evaluate: Callable[[], Any]) -> Callable[[], object]:
        """`evaluate` as an operation."""

        def run() -> None:
            with self.operation("evaluate", {"engine": "any"}):
                evaluate()

        return run

    @contextlib.contextmanager
    def operation(self, name: str, context: dict[str, Any]) -> Iterator[str | None]:
        """Something that is watched."""
        if random.random() > self._share_now(name):  # noqa: S311 -- a sample
            yield None
            return
        key = f"{name}_{time.time()}_{threading.get_ident()}"
        started, before = time.perf_counter(), self._megabytes()
        with self._lock:
            self._running[key] = (name, started, before, context)
        try:
            yield key
        finally:
            self._finish(key, time.perf_counter(), self._megabytes())

    def _finish(self, key: str, ended: float, after: float) -> None:
        with self._lock:
            name, started, before, context = self._running.pop(key)
            milliseconds = (ended - started) * 1000
            self._history.append(Operation(name, started, ended, milliseconds, before, after, context))
            self._durations[name].append(milliseconds)
            if milliseconds > SLOW_MILLISECONDS or after - before > LARGE_MEGABYTES:
                self.slow += 1

    def _share_now(self, name: str) -> float:
        if not self._adaptive:
            return self._share
        now = time.time()
        if now - self._second_began >= 1:
            self._counts.clear()
            self._second_began = now
        self._counts[name] += 1
        per_second = self._counts[name] / max(now - self._second_began, 0.001)
        return BUSY_SHARE if per_second > BUSY_PER_SECOND else self._share

    def _megabytes(self) -> float:
        return float(self._process.memory_info().rss) / 2**20
