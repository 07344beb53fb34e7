"""What a bottleneck rule says of an evaluation. The rules themselves: `fhirpath_otel.analysis`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A bottleneck: numbers and static text only, so that it may leave the process as it is.

    `start` and `end` are 0-based offsets of characters in the expression; `saving` is estimated, in seconds.
    """

    rule: str
    severity: str
    stage: str
    start: int
    end: int
    evidence: Mapping[str, float]
    saving: float
    advice: str
