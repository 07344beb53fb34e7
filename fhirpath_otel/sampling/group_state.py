"""What the state machine of span groups works with: limits, verdicts, groups, and the steps it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fhirpath_otel import semconv

S = TypeVar("S")

Key = tuple[int, int]
"""A span's trace id and span id."""

STARTED_BYTES = 300
"""About what a span that was started, or a group, takes here; what an ended one takes its caller tells."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be held of spans that are not decided: traces, spans of each, estimated bytes of all, seconds.

    `remembered` spans of decided traces are known again when something comes late.
    """

    traces: int = 1_000
    spans_per_trace: int = 1_000
    bytes: int = 8 * 1024 * 1024
    seconds: float = 120.0
    remembered: int = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a group: `root` is its top, `mark` what its kept spans are told, if anything.

    `reason` is why they are kept, for parents that come after that. `lost` is the reason why it was given up
    undecided; None for a real decision.
    """

    kept: bool
    root: Key | None = None
    mark: object = None
    reason: str = semconv.OTHER
    lost: str | None = None


UNCHANGED = Verdict(True)
"""For spans that somebody else has decided to keep already."""


@dataclass(slots=True, eq=False)
class Group(Generic[S]):
    """Spans that wait for each other: those that have ended, with their parents, and the keys of those that have not.

    `kept_inside` is the reason why a trace further down was kept, which needs its parents; `spans` may be empty then.
    """

    top: Key
    begun: float
    spans: dict[Key, S] = field(default_factory=dict)
    parents: dict[Key, Key | None] = field(default_factory=dict)
    open: set[Key] = field(default_factory=set)
    sizes: dict[Key, int] = field(default_factory=dict)
    size: int = STARTED_BYTES
    forced: bool = False
    kept_inside: str | None = None

    def members(self) -> set[Key]:
        """Every span that is known to belong here, also the top that nobody has seen yet."""
        return {self.top, *self.open, *self.spans}

    def below(self, key: Key) -> list[Key]:
        """The span and the ended ones below it."""
        found = [key]
        for parent in found:
            found.extend(child for child, its in self.parents.items() if its == parent and child not in found)
        return found


@dataclass(slots=True)
class Step(Generic[S]):
    """What is to be done: spans to hand over with their verdicts, and what is not handed over.

    `dropped` counts spans of traces that were not to be kept, `lost` those that were given up, by reason.
    """

    forward: list[tuple[Verdict, list[S]]] = field(default_factory=list)
    dropped: int = 0
    lost: dict[str, int] = field(default_factory=dict)

    def lose(self, reason: str, count: int = 1) -> None:
        """Counts spans that were given up."""
        if count:
            self.lost[reason] = self.lost.get(reason, 0) + count

    def follow(self, verdict: Verdict, spans: list[S]) -> None:
        """What the verdict means for these spans."""
        if verdict.lost is not None:
            self.lose(verdict.lost, len(spans))
        elif not verdict.kept:
            self.dropped += len(spans)
        elif spans:
            self.forward.append((verdict, spans))
