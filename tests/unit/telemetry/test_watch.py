"""Turns and draws fall where they should, weights add up, and threads neither skip nor double any."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome
from fhirpath_otel.telemetry.watch import NEVER, UNSETTLED_INTERVAL, Watch, drained

DROPPED = Outcome(False, semconv.DROPPED, semconv.NOT_SELECTED)


def watch(passes=None) -> Watch:
    return Watch("hash", None, DROPPED, None if passes is None else iter(passes).__next__)


def begun(watching: Watch) -> Evaluation:
    evaluation = Evaluation()
    watching.tell(evaluation, watching.next_turn())
    return evaluation


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 7))
def test_draws_and_turns_fall_where_they_were_put(passes, interval):
    watching = watch([*passes, *itertools.repeat(NEVER, 9)])
    watching.set_detail("basic", "operators", interval, 1)
    seen = [begun(watching) for _ in range(60)]
    drawn_at = list(itertools.accumulate(passes, lambda place, passed: place + passed + 1))
    assert [number for number, one in enumerate(seen) if one.drawn] == drawn_at[:1] + [
        place for place in drawn_at[1:] if place < 60
    ]
    turns = [number for number, one in enumerate(seen) if (number + 1) % interval == 0]
    assert [number for number, one in enumerate(seen) if one.detail == "operators"] == turns
    assert [one.ordinary is not None for one in seen] == [
        number not in drawn_at and number not in turns for number in range(60)
    ]


def test_without_a_baseline_and_turns_everything_is_ordinary():
    watching = watch()
    assert all(begun(watching).ordinary for _ in range(1_000))


def test_an_unsettled_expression_is_judged_again_and_again_and_then_no_more():
    watching = watch([NEVER])
    watching.settle(False)
    judged = [number for number in range(200) if not begun(watching).ordinary]
    assert judged == [UNSETTLED_INTERVAL * times - 1 for times in (1, 2, 3)]
    watching.settle(True)
    assert all(begun(watching).ordinary for _ in range(200))


def test_a_new_detail_leaves_the_draw_where_it_is():
    watching = watch([50, NEVER])
    for _ in range(20):
        begun(watching)
    watching.set_detail("stages", "operators", 10, 1)
    drawn = [number for number in range(20, 60) if begun(watching).drawn]
    assert drawn == [50]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_the_weights_of_those_that_are_timed_add_up_to_all(rounds):
    watching = watch()
    evaluations = accounted = 0
    for timed_one_in in rounds:
        watching.set_detail("basic", "basic", NEVER, timed_one_in)
        for _ in range(23):
            evaluations += 1
            if not next(watching.untimed, False):
                accounted += watching.weight()
            if evaluations % 5 == 0:
                accounted += watching.unaccounted()
    accounted += watching.unaccounted()
    assert accounted == evaluations


@pytest.fixture
def rapid_switching():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("rapid_switching")
def test_threads_neither_skip_nor_double_a_draw():
    watching = watch(itertools.repeat(3))
    watching.set_detail("basic", "operators", 7, 1)
    drawn: list[bool] = []

    def run():
        drawn.extend(bool(begun(watching).drawn) for _ in range(5_000))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(drawn) == pytest.approx(40_000 / 4, rel=0.005)


def test_what_waits_is_taken_once_and_forgotten_in_a_forked_child():
    watching = watch()
    watching.noted.fromlist([3, 1, 2])
    assert drained(watching.noted) == [3, 1, 2]
    assert drained(watching.noted) == []
    for waiting in (watching.noted, watching.plain, watching.weighed):
        waiting.append(1)
    watching.set_detail("basic", "basic", NEVER, 5)
    next(watching.untimed)
    watching.forget()
    assert not any((watching.noted, watching.plain, watching.weighed))
    assert watching.unaccounted() == 0


def test_a_draw_that_cannot_be_paid_leaves_the_evaluation_ordinary_and_is_remembered():
    paid = iter([True, False, False])
    watching = Watch("hash", None, DROPPED, itertools.repeat(4).__next__, lambda: next(paid))
    seen = [begun(watching) for _ in range(15)]
    assert [number for number, one in enumerate(seen) if one.drawn] == [4]
    assert [number for number, one in enumerate(seen) if not one.ordinary] == [4]
    assert [number for number, one in enumerate(seen) if one.unpaid] == [9, 14]


def test_a_retired_watch_lets_nobody_pass():
    watching = watch()
    watching.retire()
    assert not next(watching.passes, False)
    assert watching.retired


def test_what_was_counted_untimed_and_then_failed_is_made_up_for_by_the_next():
    watching = watch()
    watching.set_detail("basic", "basic", NEVER, 5)
    next(watching.untimed)
    assert watching.unaccounted() == 1
    watching.judge_instead(0)
    assert watching.unaccounted() == 0
    next(watching.untimed)
    assert watching.unaccounted() == 0
    next(watching.untimed)
    assert watching.unaccounted() == 1
