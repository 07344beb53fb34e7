"""The running percentile: how near it is, how it follows, and what it holds."""

from __future__ import annotations

import os
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel.sampling.usual_durations import HALVED_AT, WARM_UP, RunningPercentile, UsualDurations
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.redaction import template_from

WIDTH = 2 ** (1 / 8)


def evaluation(text="a", duration_ns=1_000_000, error_type=None) -> Evaluation:
    made = Evaluation()
    made.template = None if text is None else template_from(text)
    made.duration_ns, made.error_type = duration_ns, error_type
    return made


def running(durations) -> RunningPercentile:
    percentile = RunningPercentile()
    for duration in durations:
        percentile.add((duration,))
    return percentile


def test_there_is_no_estimate_before_the_warm_up():
    percentile = running([1_000] * (WARM_UP - 1))
    assert percentile.limit_ns == float("inf")
    percentile.add((1_000,))
    assert 1_000 <= percentile.limit_ns <= 1_000 * WIDTH


@pytest.mark.parametrize(
    "draw",
    [
        lambda chance: chance.lognormvariate(12, 0.2),
        lambda chance: chance.lognormvariate(12, 1.5),
        lambda chance: chance.uniform(1e3, 1e9),
        lambda chance: 1e5 if chance.random() < 0.95 else 1e7,
    ],
    ids=["narrow", "wide", "uniform", "two modes"],
)
def test_the_estimate_lies_at_the_percentile_or_just_above(draw):
    chance = random.Random(3)  # noqa: S311
    durations = [int(draw(chance)) for _ in range(64 * 60)]
    percentile = running(durations)
    exact = sorted(durations)[int(len(durations) * 0.99) - 1]
    assert exact / 1.001 <= percentile.limit_ns <= exact * WIDTH * 1.01


@given(st.lists(st.integers(0, 10**13), min_size=WARM_UP, max_size=WARM_UP + 200))
def test_at_most_one_in_a_hundred_lies_above_when_it_is_estimated(durations):
    durations = durations[: len(durations) // 64 * 64]
    percentile = running(durations)
    assert sum(duration > percentile.limit_ns for duration in durations) * 100 <= len(durations)


def test_only_about_one_in_a_hundred_of_a_steady_load_is_unusual():
    chance, percentile, unusual = random.Random(5), RunningPercentile(), 0  # noqa: S311
    for _ in range(20_000):
        duration = int(chance.lognormvariate(12, 0.5))
        unusual += duration > percentile.limit_ns
        percentile.add((duration,))
    assert 50 < unusual < 260


@pytest.mark.parametrize(("factor", "bound"), [(10, 130), (0.1, HALVED_AT * 7)])
def test_the_estimate_follows_a_step(factor, bound):
    percentile = running([1_000_000] * 20_000)
    new = int(1_000_000 * factor)
    steps = 0
    while not new <= percentile.limit_ns <= new * WIDTH:
        percentile.add((new,))
        steps += 1
        assert steps <= bound


@given(st.lists(st.integers(-5, 10**18), max_size=300))
def test_any_duration_can_be_counted(durations):
    assert running(durations).limit_ns == float("inf")


def test_memory_is_bounded():
    percentile = running(int(1.01**number) for number in range(3_000))
    assert sys.getsizeof(percentile._buckets) < 20_000
    usual = UsualDurations(3)
    for number in range(100):
        usual.note(evaluation(str(number)))
        usual.note(evaluation("0"))
    assert list(usual._percentiles) == [template_from(text).hash for text in ("98", "99", "0")]


def test_what_failed_or_has_no_expression_is_not_counted():
    usual = UsualDurations(3)
    usual.note(evaluation(None))
    usual.note(evaluation(error_type="syntax"))
    assert not usual._percentiles
    assert not usual.is_exceeded(evaluation(None))
    assert not usual.is_exceeded(evaluation())


def test_no_expressions_remembered_means_nothing_is_unusual():
    usual = UsualDurations(0)
    for _ in range(WARM_UP):
        usual.note(evaluation())
    assert not usual.is_exceeded(evaluation(duration_ns=10**12))


def test_each_expression_has_its_own():
    usual = UsualDurations(3)
    for _ in range(WARM_UP):
        usual.note(evaluation("a", 1_000_000))
        usual.note(evaluation("b", 10_000_000))
    assert usual.is_exceeded(evaluation("a", 5_000_000))
    assert not usual.is_exceeded(evaluation("b", 5_000_000))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_lock_that_is_held_at_a_fork_does_not_stop_the_child():
    usual = UsualDurations(3)
    with usual._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if usual._lock.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
