"""The weight of a trace in its `tracestate`: `ot=th:…`, as OpenTelemetry's enhancement proposal 235 has it.

A trace is sampled where its randomness, 56 bits, reaches the threshold. So one that carries a threshold stands for
2⁵⁶ / (2⁵⁶ - threshold) traces, and thresholds combine as their maximum. The randomness is the end of the trace id, or
the entry `rv`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opentelemetry.trace import TraceState

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

RANGE = 1 << 56
"""Randomness lies below this; a threshold of this much would sample nothing."""

_KEY = "ot"
_MAX_ENTRIES = 32
_THRESHOLD = re.compile(r"[0-9a-f]{1,14}")
_RANDOMNESS = re.compile(r"[0-9a-f]{14}")


def threshold_of(probability: float) -> int:
    """The threshold that samples with this probability."""
    return RANGE - round(probability * RANGE)


def threshold_in(state: TraceState | None) -> int | None:
    """The threshold that the state carries, if it carries a valid one."""
    text = _members(state).get("th", "")
    return int(text.ljust(14, "0"), 16) if _THRESHOLD.fullmatch(text) else None


def randomness_of(context: SpanContext) -> int:
    """The randomness of the trace."""
    text = _members(context.trace_state).get("rv", "")
    return int(text, 16) if _RANDOMNESS.fullmatch(text) else context.trace_id % RANGE


def incoming_threshold(caller: SpanContext) -> int | None:
    """The threshold that the caller was sampled with; None where it says none, or one that it does not reach."""
    threshold = threshold_in(caller.trace_state)
    return None if threshold is None or randomness_of(caller) < threshold else threshold


def with_threshold(state: TraceState | None, threshold: int) -> TraceState:
    """The state with this threshold in place of its own; everything else in it stays."""
    members = {"th": f"{threshold:014x}".rstrip("0") or "0"}
    members |= {name: value for name, value in _members(state).items() if name != "th"}
    others = [(key, value) for key, value in (state or {}).items() if key != _KEY]
    text = ";".join(f"{name}:{value}" for name, value in members.items())
    return TraceState([(_KEY, text), *others][:_MAX_ENTRIES])


def _members(state: TraceState | None) -> dict[str, str]:
    text = state.get(_KEY, "") if state else ""
    return {name: value for name, _, value in (member.partition(":") for member in text.split(";")) if name}
