"""When a group is complete, what late spans do, and what is given up; the clock is passed in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel.sampling.group_state import Limits, Step, Verdict
from fhirpath_otel.sampling.span_groups import SpanGroups

ROOT, CHILD, GRANDCHILD, OTHER = (1, 1), (1, 2), (1, 3), (1, 4)


class Judge:
    """Decides as told, and keeps what it was asked about."""

    def __init__(self, kept=True):
        self.kept = kept
        self.asked = []

    def __call__(self, group):
        self.asked.append((group.top, set(group.spans), group.forced, group.kept_inside))
        return Verdict(self.kept or group.kept_inside is not None, group.top)


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def at_processor(judge, now):
    limits = Limits(traces=3, spans_per_trace=4, bytes=5_000, seconds=10.0)
    return SpanGroups(judge, starts_seen=True, limits=limits, clock=lambda: now[0])


@pytest.fixture
def at_exporter(judge, now):
    limits = Limits(traces=3, spans_per_trace=4, bytes=5_000, seconds=10.0)
    return SpanGroups(judge, starts_seen=False, limits=limits, clock=lambda: now[0])


def forwarded(*steps: Step) -> list:
    return [span for step in steps for _, spans in step.forward for span in spans]


def test_a_group_is_complete_when_its_root_and_all_below_it_has_ended(at_processor, judge):
    at_processor.started(ROOT, None)
    at_processor.started(CHILD, ROOT)
    at_processor.started(GRANDCHILD, CHILD)
    first = at_processor.ended(GRANDCHILD, CHILD, "grandchild")
    second = at_processor.ended(ROOT, None, "root")
    assert not judge.asked
    third = at_processor.ended(CHILD, ROOT, "child")
    assert judge.asked == [(ROOT, {ROOT, CHILD, GRANDCHILD}, False, None)]
    assert forwarded(first, second) == []
    assert forwarded(third) == ["grandchild", "root", "child"]
    assert at_processor.held() == (0, 0, 0)


def test_where_only_ended_spans_are_seen_children_wait_for_a_root(at_exporter, judge):
    steps = [
        at_exporter.ended(GRANDCHILD, CHILD, "grandchild"),
        at_exporter.ended(OTHER, ROOT, "other"),
        at_exporter.ended(CHILD, ROOT, "child"),
    ]
    assert forwarded(*steps) == []
    assert set(forwarded(at_exporter.ended(ROOT, None, "root"))) == {"grandchild", "other", "child", "root"}
    assert len(judge.asked) == 1


def test_a_span_that_says_it_is_a_root_does_not_wait_for_its_parent(at_exporter):
    at_exporter.ended(GRANDCHILD, CHILD, "grandchild")
    assert forwarded(at_exporter.ended(CHILD, ROOT, "child", root=True)) == ["grandchild", "child"]
    assert at_exporter.held() == (0, 0, 0)


def test_a_parent_that_is_passed_on_completes_what_waits_for_it_and_decides_nothing_else(at_exporter, judge):
    at_exporter.ended(CHILD, ROOT, "child")
    assert forwarded(at_exporter.passed(ROOT)) == ["child"]
    assert forwarded(at_exporter.passed(ROOT)) == []
    judge.kept = False
    at_exporter.ended(OTHER, ROOT, "other")
    assert at_exporter.passed(ROOT).dropped == 1


@pytest.mark.parametrize("kept", [True, False])
def test_what_comes_late_follows_the_decision(at_processor, judge, kept):
    judge.kept = kept
    at_processor.started(ROOT, None)
    at_processor.ended(ROOT, None, "root")
    at_processor.started(CHILD, ROOT)
    at_processor.started(GRANDCHILD, CHILD)
    late = at_processor.ended(GRANDCHILD, CHILD, "late"), at_processor.ended(OTHER, CHILD, "later")
    assert forwarded(*late) == (["late", "later"] if kept else [])
    assert [step.dropped for step in late] == ([0, 0] if kept else [1, 1])
    assert len(judge.asked) == 1


def test_a_span_that_ends_twice_is_counted_and_not_handed_over_again(at_processor):
    at_processor.started(ROOT, None)
    at_processor.started(CHILD, ROOT)
    steps = [at_processor.ended(CHILD, ROOT, "child") for _ in range(2)]
    assert steps[1].lost == {"ended_twice": 1}
    assert forwarded(at_processor.ended(ROOT, None, "root")) == ["child", "root"]
    again = at_processor.ended(ROOT, None, "root"), at_processor.ended(CHILD, ROOT, "child")
    assert forwarded(*again) == []
    assert [step.lost for step in again] == [{"ended_twice": 1}] * 2


def test_somebody_who_asks_for_a_trace_is_remembered(at_processor, judge):
    at_processor.started(ROOT, None, forced=True)
    at_processor.started(CHILD, ROOT)
    at_processor.ended(CHILD, ROOT, "child")
    at_processor.ended(ROOT, None, "root")
    assert judge.asked[0][2]


def test_what_is_kept_elsewhere_passes_at_once_and_its_parents_are_kept(at_processor, judge):
    judge.kept = False
    at_processor.started(ROOT, None)
    at_processor.kept_elsewhere(CHILD, ROOT, "slow")
    at_processor.started(GRANDCHILD, CHILD)
    assert forwarded(at_processor.ended(GRANDCHILD, CHILD, "grandchild")) == ["grandchild"]
    assert forwarded(at_processor.ended(CHILD, ROOT, "child")) == ["child"]
    assert forwarded(at_processor.ended(ROOT, None, "root")) == ["root"]
    assert judge.asked == [(ROOT, {ROOT}, False, "slow")]


def test_parents_of_what_is_kept_elsewhere_are_kept_however_long_they_take(at_processor, now):
    at_processor.started(ROOT, None)
    at_processor.started(OTHER, ROOT)
    at_processor.ended(OTHER, ROOT, "other")
    at_processor.kept_elsewhere(CHILD, ROOT, "slow")
    now[0] = 11.0
    step = at_processor.ended(CHILD, ROOT, "child")
    assert (forwarded(step), step.lost) == (["child", "other"], {})
    assert forwarded(at_processor.ended(ROOT, None, "root")) == ["root"]


def test_at_the_exporter_what_is_kept_elsewhere_also_keeps_parents_that_come_later(at_exporter, judge):
    judge.kept = False
    at_exporter.ended(GRANDCHILD, CHILD, "grandchild")
    assert forwarded(at_exporter.ended(CHILD, OTHER, "child", root=True, kept="slow")) == [
        "grandchild",
        "child",
    ]
    assert forwarded(at_exporter.ended(OTHER, ROOT, "other")) == ["other"]
    assert forwarded(at_exporter.ended(ROOT, None, "root")) == ["root"]
    assert [asked[3] for asked in judge.asked] == ["slow", "other"]


def test_roots_that_never_end_are_given_up_the_oldest_first(at_processor, judge):
    for number in range(5_000):
        at_processor.started((number, 1), None)
        at_processor.started((number, 2), (number, 1))
    lost = [at_processor.ended((number, 2), (number, 1), number).lost for number in range(5_000)]
    assert lost[:4_997] == [{"too_many_traces": 1}] * 4_997
    assert at_processor.held()[0] == 3
    # The root of a group that was given up can still be judged, alone.
    assert forwarded(at_processor.ended((4_000, 1), None, "root")) == ["root"]
    assert judge.asked == [((4_000, 1), {(4_000, 1)}, False, None)]


def test_age_gives_up_what_has_no_root_and_decides_what_has_one(at_processor, now):
    at_processor.started((1, 1), None)
    at_processor.started((1, 2), (1, 1))
    at_processor.ended((1, 2), (1, 1), "orphan")
    at_processor.started((2, 1), None)
    at_processor.started((2, 2), (2, 1))
    at_processor.ended((2, 1), None, "root")
    now[0] = 11.0
    step = at_processor.started((3, 1), None)
    assert step.lost == {"too_old": 1}
    assert forwarded(step) == ["root"]
    assert forwarded(at_processor.ended((2, 2), (2, 1), "late")) == ["late"]


def test_a_clock_that_is_set_back_makes_nothing_immortal(at_processor, now):
    now[0] = 1_000_000.0
    at_processor.started(ROOT, None)
    now[0] = 0.0
    at_processor.started((2, 1), None)
    now[0] = 11.0
    at_processor.started((3, 1), None)
    assert at_processor.held()[0] == 1


def test_too_many_bytes_give_up_the_oldest(at_processor):
    at_processor.started((1, 1), None)
    at_processor.started((1, 2), (1, 1))
    assert not at_processor.ended((1, 2), (1, 1), "large", size=4_000).lost
    assert at_processor.started((2, 1), None).lost == {"too_many_bytes": 1}
    assert at_processor.held() == (1, 0, 600)


def test_a_full_group_takes_no_more_children(at_processor):
    at_processor.started(ROOT, None)
    for number in range(2, 9):
        at_processor.started((1, number), ROOT)
    at_processor.started((1, 20), (1, 8))
    ended = [at_processor.ended((1, 20), (1, 8), 20)]
    ended += [at_processor.ended((1, number), ROOT, number) for number in range(2, 9)]
    assert [step.lost for step in ended] == [{"too_many_spans": 1}, {}, {}, {}] + [{"too_many_spans": 1}] * 4
    assert forwarded(at_processor.ended(ROOT, None, "root")) == [2, 3, 4, "root"]


def test_closing_decides_what_has_its_root_and_counts_the_rest(at_processor):
    at_processor.started((1, 1), None)
    at_processor.started((1, 2), (1, 1))
    at_processor.ended((1, 2), (1, 1), "orphan")
    at_processor.started((2, 1), None)
    at_processor.started((2, 2), (2, 1))
    at_processor.ended((2, 1), None, "root")
    step = at_processor.close()
    assert step.lost == {"undecided": 1}
    assert forwarded(step) == ["root"]


def test_parents_that_point_at_each_other_wait_only_until_they_are_old(at_exporter, now):
    at_exporter.ended(ROOT, CHILD, "first")
    at_exporter.ended(CHILD, ROOT, "second")
    assert at_exporter.held()[1] == 2
    now[0] = 11.0
    assert forwarded(at_exporter.passed((9, 9)), at_exporter.ended((5, 5), None, "x")) == [
        "x",
        "first",
        "second",
    ]


def test_groups_that_become_one_give_up_leaves_first(at_exporter):
    for leaf, parent in ((5, 2), (6, 2), (7, 3), (8, 3)):
        at_exporter.ended((1, leaf), (1, parent), leaf)
    at_exporter.ended((1, 2), ROOT, 2)
    assert at_exporter.ended((1, 3), ROOT, 3).lost == {"too_many_spans": 2}
    assert at_exporter.held()[1] == 4
    step = at_exporter.ended(ROOT, None, "root")
    assert (forwarded(step), step.lost) == ([3, "root"], {"too_many_spans": 3})


@st.composite
def trees(draw):
    """Parents by number, each smaller than its child's; None for roots."""
    return [
        None if number == 0 else draw(st.sampled_from([None, *range(number)]))
        for number in range(draw(st.integers(1, 20)))
    ]


@given(tree=trees(), starts_seen=st.booleans(), per_trace=st.integers(2, 6), traces=st.integers(1, 4))
def test_no_span_is_kept_without_its_parent(tree, starts_seen, per_trace, traces):
    limits = Limits(traces=traces, spans_per_trace=per_trace)
    groups = SpanGroups(lambda group: Verdict(True, group.top), starts_seen=starts_seen, limits=limits)
    parents = [None if parent is None else (7, parent) for parent in tree]
    steps = [groups.started((7, number), parent) for number, parent in enumerate(parents) if starts_seen]
    steps += [groups.ended((7, number), parents[number], number) for number in reversed(range(len(tree)))]
    kept = set(forwarded(*steps, groups.close()))
    assert all(tree[number] is None or tree[number] in kept for number in kept)


def test_threads_lose_nothing_and_hand_nothing_over_twice():
    groups = SpanGroups(lambda group: Verdict(group.top[0] % 2 == 0, group.top), starts_seen=True)

    def work(thread):
        steps = []
        for turn in range(300):
            trace = thread * 1_000 + turn
            steps += [groups.started((trace, number), (trace, 0) if number else None) for number in range(5)]
            steps += [
                groups.ended((trace, number), (trace, 0) if number else None, (trace, number))
                for number in reversed(range(5))
            ]
        return steps

    with ThreadPoolExecutor(8) as threads:
        steps = [step for some in threads.map(work, range(8)) for step in some]
    spans = forwarded(*steps)
    assert len(spans) == len(set(spans)) == 8 * 150 * 5
    assert sum(step.dropped for step in steps) == 8 * 150 * 5
    assert groups.held() == (0, 0, 0)
