"""The operators of an evaluation: how often each place of the text was evaluated, and how long that took by itself.

An engine marks the beginning and end of every operator, which costs about half a microsecond a time. So it is done only
in evaluations of the level `operators`, and what is kept of one is a sum for each place of its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from fhirpath_otel import semconv

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.evaluation import Evaluation
    from fhirpath_otel.telemetry.redaction import Disclosure

MOST_PLACES = 100
"""Operators of one evaluation that are told apart; each is a span if the trace is kept."""

MOST_SERIES = 120
"""Attribute sets of `fhirpath.operator.duration`. There are 148 names, of which a process uses a few dozen."""


class Place(NamedTuple):
    """An operator in the text of an expression: the first fields of `OperatorTime`."""

    name: str
    position: int | None = None
    length: int | None = None
    is_path: bool = False


class OperatorTime(NamedTuple):
    """What one operator did in an evaluation, summed over all its calls.

    `name` comes from the function table, the keywords or the model, and is `?` for any other. `position` and `length`
    are those of its name or symbol, in characters; None where they are not known. `active_ns` is its own time, without
    that of operators within it. `input_count` counts the items that it was applied to (of `a + b` those of `a` and of
    `b`; not those of a function's arguments), `output_count` those that it gave. A step of a path (`is_path`) has the
    name of its element.
    """

    name: str
    position: int | None
    length: int | None
    calls: int
    active_ns: int
    input_count: int
    output_count: int
    is_path: bool = False


class Mark:
    """The sums of one place so far; an engine adds to them."""

    __slots__ = ("active_ns", "calls", "input_count", "output_count", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.calls = self.active_ns = self.input_count = self.output_count = 0

    def time(self) -> OperatorTime:
        """The sums as they are now."""
        name, position, length, is_path = self.place
        return OperatorTime(
            name,
            position,
            length,
            self.calls,
            self.active_ns,
            self.input_count,
            self.output_count,
            is_path,
        )


class OperatorMarks:
    """The marks of one evaluation, which runs in one thread at a time.

    Whoever runs an operator sets `nested_ns` to 0 before it, and to its former value plus the operator's whole time
    after it: what stands there in between is the time of the operators within.
    """

    __slots__ = ("marks", "nested_ns")

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self.marks = [Mark(place) for place in places]
        self.nested_ns = 0

    def add(self, place: Place) -> Mark:
        """A mark for one more place."""
        mark = Mark(place)
        self.marks.append(mark)
        return mark

    def times(self) -> tuple[OperatorTime, ...]:
        """The operators that were called, the gravest first."""
        return gravest(mark.time() for mark in self.marks if mark.calls)


def gravest(times: Iterable[OperatorTime], limit: int = MOST_PLACES) -> tuple[OperatorTime, ...]:
    """The operators by their time, the longest first; what exceeds the limit is summed up in one more, `other`."""
    found = sorted(times, key=attrgetter("active_ns"), reverse=True)
    rest = found[limit:]
    if not rest:
        return tuple(found)
    other = OperatorTime(
        semconv.OTHER,
        None,
        None,
        calls=sum(time.calls for time in rest),
        active_ns=sum(time.active_ns for time in rest),
        input_count=sum(time.input_count for time in rest),
        output_count=sum(time.output_count for time in rest),
    )
    return (*found[:limit], other)


def operator_values(evaluation: Evaluation, disclosure: Disclosure) -> list[tuple[str, int]]:
    """The values for the metric: the nanoseconds of each operator's name; all steps of paths are one."""
    sums: dict[str, int] = {}
    for time in evaluation.operators:
        name = semconv.PATH if time.is_path else disclosure.operator_name(time.name)
        sums[name] = sums.get(name, 0) + time.active_ns
    return list(sums.items())
