"""Which spans belong together, and when all of them are there: a state machine over started and ended spans.

A group has one top: the local root (no parent, or a remote one), or the first span that concerns us below spans that do
not. Where starts are seen (at a span processor) parents come before their children, so a span whose parent is unknown
is a top; the group is complete when its top and all that was started below it has ended. Where only ended spans are
seen (at an exporter) children come first, and wait for their parent; the group is complete when a span that is a root
arrives. What comes for a group that was decided follows its decision.

Everything is bounded, and what is given up is counted by reason. Deciding happens under the lock; what is to be done
is returned, so that the caller does it outside.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import RLock
from typing import Generic

from fhirpath_otel import semconv
from fhirpath_otel.sampling.group_state import STARTED_BYTES, UNCHANGED, Group, Key, Limits, S, Step, Verdict
from fhirpath_otel.telemetry.forks import call_in_forked_child


class SpanGroups(Generic[S]):
    """The groups under way. Threads may share it; in a forked child it begins anew, as its spans are the parent's.

    `decide` is asked about each complete group, and must not raise. `clock` gives seconds, from any start.
    """

    def __init__(
        self,
        decide: Callable[[Group[S]], Verdict],
        *,
        starts_seen: bool,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decide = decide
        self._starts_seen = starts_seen
        self._limits = limits or Limits()
        self._clock = clock
        self.forget()
        call_in_forked_child(self.forget)

    def forget(self) -> None:
        """Begins anew, with a lock that nobody holds."""
        # Policies and finalizers that run while it is held may start and end spans themselves.
        self._lock = RLock()
        self._groups: OrderedDict[int, Group[S]] = OrderedDict()
        self._members: dict[Key, Group[S]] = {}
        self._verdicts: OrderedDict[Key, tuple[Verdict, bool]] = OrderedDict()
        self._size = 0

    def held(self) -> tuple[int, int, int]:
        """How many groups, ended spans, and estimated bytes are held."""
        with self._lock:
            return len(self._groups), sum(len(group.spans) for group in self._groups.values()), self._size

    def started(self, key: Key, parent: Key | None, *, forced: bool = False) -> Step[S]:
        """A span has started; `parent` is its local one. `forced` says that somebody asks for its trace."""
        step: Step[S] = Step()
        with self._lock:
            if key in self._members or key in self._verdicts:
                return step
            known = None if parent is None else self._verdicts.get(parent)
            if known is not None:
                self._remember(key, known[0], ended=False)
                return step
            group = (self._members.get(parent) if parent else None) or self._new(key)
            if len(group.open) + len(group.spans) >= self._limits.spans_per_trace:
                self._remember(key, Verdict(False, lost=semconv.TOO_MANY_SPANS), ended=False)
                return step
            self._members[key] = group
            group.open.add(key)
            group.forced = group.forced or forced
            self._resize(group, STARTED_BYTES)
            self._keep_within_limits(step)
        return step

    def kept_elsewhere(self, key: Key, parent: Key | None, reason: str) -> None:
        """A span whose trace somebody else keeps has started: what is below it follows, and its parents are kept."""
        with self._lock:
            self._remember(key, UNCHANGED, ended=False)
            self._keep(Step(), parent, reason)

    def ended(
        self,
        key: Key,
        parent: Key | None,
        span: S,
        *,
        size: int = 0,
        root: bool = False,
        kept: str | None = None,
    ) -> Step[S]:
        """A span has ended. `root` says that it is a top whatever its parent, `kept` why somebody else keeps it."""
        step: Step[S] = Step()
        with self._lock:
            known = self._verdicts.get(key)
            if known is not None and known[0].lost is not None and known[0].root == key and not known[1]:
                del self._verdicts[key]  # Its group was given up, but it alone can still be judged.
                known, root = None, True
            if known is not None:
                self._late(step, key, known, span)
                if known[0].kept and not self._starts_seen:
                    # It was decided before this span came, which may have a parent itself.
                    self._keep(step, parent, known[0].reason)
            elif key in self._members and key in self._members[key].spans:
                step.lose(semconv.ENDED_TWICE)
            else:
                self._add(step, key, parent, span, size, root=root or parent is None, kept=kept)
            self._keep_within_limits(step)
        return step

    def passed(self, key: Key) -> Step[S]:
        """A span that is none of ours has ended: what waits for it as its parent is complete."""
        step: Step[S] = Step()
        with self._lock:
            group = self._members.get(key)
            if group is not None and group.top == key:
                self._settle(step, group)
            self._verdicts.pop(key, None)
        return step

    def close(self) -> Step[S]:
        """Decides what can still be decided, and gives up the rest."""
        step: Step[S] = Step()
        with self._lock:
            while self._groups:
                self._give_up(step, next(iter(self._groups.values())), semconv.UNDECIDED)
        return step

    def _late(self, step: Step[S], key: Key, known: tuple[Verdict, bool], span: S) -> None:
        verdict, ended = known
        if ended:
            step.lose(semconv.ENDED_TWICE)
            return
        self._remember(key, verdict, ended=True)
        step.follow(verdict, [span])

    def _add(
        self, step: Step[S], key: Key, parent: Key | None, span: S, size: int, *, root: bool, kept: str | None
    ) -> None:
        seen = self._members.get(key)
        known = None if root or seen is not None or parent is None else self._verdicts.get(parent)
        if known is not None:
            self._remember(key, known[0], ended=True)
            step.follow(known[0], [span])
            return
        group = seen
        if group is None and not root and parent is not None:
            group = self._members.get(parent)
        group = group or self._new(key)
        self._members[key] = group
        if key in group.open:
            group.open.discard(key)
        elif len(group.spans) + len(group.open) >= self._limits.spans_per_trace and not self._room(
            step, group, key
        ):
            self._remember(key, Verdict(False, lost=semconv.TOO_MANY_SPANS), ended=True)
            del self._members[key]
            step.lose(semconv.TOO_MANY_SPANS)
            return
        group.spans[key] = span
        group.parents[key] = parent
        group.sizes[key] = size
        self._resize(group, size)
        if key == group.top and not root and not self._starts_seen and parent is not None:
            self._rise(step, group, parent)
        elif group.top in group.spans and not group.open:
            self._settle(step, group, None if kept is None else UNCHANGED)
            if kept is not None:
                self._keep(step, parent, kept)

    def _rise(self, step: Step[S], group: Group[S], parent: Key) -> None:
        """The top has a parent that may still come: it becomes the top, or its group takes this one in."""
        known, other = self._verdicts.get(parent), self._members.get(parent)
        if known is not None:
            self._settle(step, group, known[0])
        elif other is None:
            group.top = parent
            self._members[parent] = group
        elif other is not group:
            self._merge(step, group, other)

    def _merge(self, step: Step[S], group: Group[S], other: Group[S]) -> None:
        """Puts a group into another one, which waits for the same top."""
        self._remove(group)
        # Children end first: of too many spans the last ones have their parents among them.
        too_many = max(0, len(group.spans) + len(other.spans) - self._limits.spans_per_trace)
        for number, (key, span) in enumerate(group.spans.items()):
            if number < too_many:
                self._remember(key, Verdict(False, lost=semconv.TOO_MANY_SPANS), ended=True)
                step.lose(semconv.TOO_MANY_SPANS)
                continue
            other.spans[key], other.parents[key] = span, group.parents[key]
            other.sizes[key] = group.sizes[key]
            self._resize(other, group.sizes[key])
            self._members[key] = other

    def _room(self, step: Step[S], group: Group[S], key: Key) -> bool:
        """In a full group a span takes the place of one below it, so that no span loses its parent."""
        if key == group.top and not any(parent == key for parent in group.parents.values()):
            return True
        child = next((child for child, parent in group.parents.items() if parent == key), None)
        if child is None:
            return False
        for lost in group.below(child):
            del group.spans[lost], group.parents[lost], self._members[lost]
            self._resize(group, -group.sizes.pop(lost))
            self._remember(lost, Verdict(False, lost=semconv.TOO_MANY_SPANS), ended=True)
            step.lose(semconv.TOO_MANY_SPANS)
        return True

    def _keep(self, step: Step[S], parent: Key | None, reason: str) -> None:
        """The group of this span has to be kept; where parents come last, it need not wait for them any more."""
        if parent is None or parent in self._verdicts:
            return
        group = self._members.get(parent)
        if group is not None:
            group.kept_inside = group.kept_inside or reason
            if not self._starts_seen:
                self._settle(step, group)
        elif not self._starts_seen:
            unseen: Group[S] = Group(parent, self._clock(), kept_inside=reason)
            self._remember(parent, self._decide(unseen), ended=False)

    def _settle(self, step: Step[S], group: Group[S], verdict: Verdict | None = None) -> None:
        self._remove(group)
        if verdict is None:
            verdict = self._decide(group)
        for key in group.members():
            # A top that nobody has seen is a span that is passed on, or one that comes late.
            self._remember(key, verdict, ended=key in group.spans)
        step.follow(verdict, list(group.spans.values()))

    def _give_up(self, step: Step[S], group: Group[S], reason: str) -> None:
        """Decides with what is there; without the top there is nothing to decide by, unless it is decided already."""
        if not self._starts_seen or group.top in group.spans or group.kept_inside is not None:
            self._settle(step, group)
        else:
            self._settle(step, group, Verdict(False, group.top, lost=reason))

    def _keep_within_limits(self, step: Step[S]) -> None:
        limits, now = self._limits, self._clock()
        while self._groups:
            oldest = next(iter(self._groups.values()))
            oldest.begun = min(oldest.begun, now)  # A clock that was set back must not make it immortal.
            if len(self._groups) > limits.traces:
                self._give_up(step, oldest, semconv.TOO_MANY_TRACES)
            elif self._size > limits.bytes:
                self._give_up(step, oldest, semconv.TOO_MANY_BYTES)
            elif now - oldest.begun > limits.seconds:
                self._give_up(step, oldest, semconv.TOO_OLD)
            else:
                return

    def _new(self, top: Key) -> Group[S]:
        group: Group[S] = Group(top, self._clock())
        self._groups[id(group)] = group
        self._size += group.size
        return group

    def _remove(self, group: Group[S]) -> None:
        self._groups.pop(id(group), None)
        self._size -= group.size
        group.size = 0
        for key in group.members():
            if self._members.get(key) is group:
                del self._members[key]

    def _resize(self, group: Group[S], size: int) -> None:
        group.size += size
        self._size += size

    def _remember(self, key: Key, verdict: Verdict, *, ended: bool) -> None:
        self._verdicts[key] = verdict, ended
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > self._limits.remembered:
            self._verdicts.popitem(last=False)
