"""The groups against whatever comes in whatever order: each span is handed over, given up, or held, exactly once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fhirpath_otel.sampling.group_state import Limits, Verdict
from fhirpath_otel.sampling.span_groups import SpanGroups

LIMITS = Limits(traces=4, spans_per_trace=6, bytes=6_000, seconds=10.0, remembered=100_000)


class Grouping(RuleBasedStateMachine):
    """A program that starts and ends spans in trees, some of them twice, some never, some seen too late."""

    starts_seen = True

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.parents: dict[tuple[int, int], tuple[int, int] | None] = {}
        self.open: list[tuple[int, int]] = []
        self.ended: list[tuple[int, int]] = []
        self.given = self.dropped = 0
        self.lost: dict[str, int] = {}
        self.forwarded: list[tuple[int, int]] = []
        self.twice = False

    @initialize(kept=st.sampled_from(["all", "none", "even"]))
    def begin(self, kept):
        def decide(group):
            return Verdict(kept == "all" or (kept == "even" and group.top[1] % 2 == 0), group.top)

        self.groups = SpanGroups(decide, starts_seen=self.starts_seen, limits=LIMITS, clock=lambda: self.now)

    def take(self, step):
        for verdict, spans in step.forward:
            assert verdict.kept
            self.forwarded += spans
        self.dropped += step.dropped
        for reason, count in step.lost.items():
            self.lost[reason] = self.lost.get(reason, 0) + count

    @rule(seconds=st.floats(-20, 20))
    def time_passes_or_the_clock_is_set(self, seconds):
        self.now += seconds

    @rule(data=st.data(), below=st.booleans(), seen=st.booleans())
    def a_span_starts(self, data, below, seen):
        parent = data.draw(st.sampled_from(self.open)) if below and self.open else None
        self.count += 1
        key = (parent[0] if parent else self.count, self.count)
        self.parents[key] = parent
        self.open.append(key)
        if self.starts_seen and (seen or parent is not None):
            self.take(self.groups.started(key, parent, forced=False))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), size=st.integers(0, 2_000))
    def a_span_ends(self, data, size):
        key = data.draw(st.sampled_from(self.open))
        self.open.remove(key)
        self.ended.append(key)
        self.give(key, size)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def a_span_ends_again(self, data):
        self.twice = True
        self.give(data.draw(st.sampled_from(self.ended)), 10)

    def give(self, key, size):
        self.given += 1
        self.take(self.groups.ended(key, self.parents[key], key, size=size))

    @rule(data=st.data())
    def a_trace_below_is_kept_elsewhere(self, data):
        parent = data.draw(st.sampled_from([*self.open, None]))
        self.count += 1
        key = (parent[0] if parent else self.count, self.count)
        self.parents[key] = parent
        if self.starts_seen:
            self.groups.kept_elsewhere(key, parent, "slow")
        self.given += 1
        self.take(self.groups.ended(key, parent, key, root=True, kept="slow"))
        assert key in self.forwarded

    @invariant()
    def each_span_is_accounted_for_once(self):
        if not hasattr(self, "groups"):
            return
        _, spans, _ = self.groups.held()
        assert len(set(self.forwarded)) == len(self.forwarded)
        assert len(self.forwarded) + self.dropped + sum(self.lost.values()) + spans == self.given

    @invariant()
    def no_more_is_held_than_allowed(self):
        if not hasattr(self, "groups"):
            return
        groups, _, size = self.groups.held()
        assert groups <= LIMITS.traces
        assert 0 <= size <= LIMITS.bytes
        for group in self.groups._groups.values():
            assert len(group.spans) + len(group.open) <= LIMITS.spans_per_trace
        assert sum(group.size for group in self.groups._groups.values()) == size
        known = {id(group) for group in self.groups._members.values()}
        assert known <= set(self.groups._groups)

    def teardown(self):
        if not hasattr(self, "groups"):
            return
        while self.open:  # Children first, as programs do.
            key = max(self.open)
            self.open.remove(key)
            self.give(key, 10)
        self.take(self.groups.close())
        assert self.groups.held() == (0, 0, 0)
        assert not self.groups._members
        self.each_span_is_accounted_for_once()


class GroupingEnds(Grouping):
    """The same, where only ended spans are seen."""

    starts_seen = False


TestGrouping = Grouping.TestCase
TestGroupingEnds = GroupingEnds.TestCase
