"""From where on something is a bottleneck, in one table. `docs/rules.md` is generated from it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _threshold(default: float, unit: str, meaning: str) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers that the rules compare with."""

    floor: float = _threshold(
        0.001,
        "seconds",
        "What takes less is no bottleneck: an evaluation, or for the rules about repetition all of the group.",
    )
    little_saving: float = _threshold(0.005, "seconds", "A finding that would save less is `info`.")
    great_saving: float = _threshold(1.0, "seconds", "A finding that would save as much is `critical`.")
    dominating_share: float = _threshold(
        0.4, "of the evaluation", "A stage of the compilation that takes more dominates it."
    )
    in_memory_saving: float = _threshold(
        0.9,
        "of the time in memory",
        "What SQL is taken to save. Measured: 0.99 and more, over 100,000 resources in DuckDB.",
    )
    repeated_parses: int = _threshold(
        10,
        "parses",
        "A text that was parsed as often within the window is parsed again and again; said then, and whenever the"
        " number has doubled.",
    )
    repeated_parses_window: float = _threshold(60.0, "seconds", "The window in which parses are counted.")
    repeated_parse_share: float = _threshold(
        0.1, "of the evaluation", "Where parsing takes less, `parse-repeated` is `info`."
    )
    repeated_executions: int = _threshold(
        10,
        "executions",
        "As many of one statement below one span of the caller are a loop; said then, and whenever the number has"
        " doubled.",
    )


THRESHOLDS = fields(Thresholds)
