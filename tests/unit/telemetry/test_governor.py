"""The governor keeps the budget, follows the load, and does not swing; all with an injected clock and known costs."""

from __future__ import annotations

import itertools
import random

import pytest

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import calibration
from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome
from fhirpath_otel.telemetry.export_cost import ExportCost
from fhirpath_otel.telemetry.governor import (
    DETAIL_SHARE,
    EXPORT_NS,
    FIRST_TRACES,
    TRACE_EVERY_SECONDS,
    TRACES_SHARE,
    Costs,
    Governor,
)
from fhirpath_otel.telemetry.operators import OperatorTime
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.watch import NEVER, Watch

DROPPED = Outcome(False, semconv.DROPPED, semconv.NOT_SELECTED)
KEPT = Outcome(True, semconv.KEPT, semconv.BASELINE, 1)
COSTS = {
    "counted": 200.0,
    "call": 600.0,
    "basic": 1_000.0,
    "stages": 2_000.0,
    "judged": 10_000.0,
    "mark": 300.0,
    "trace": 400_000.0,
    "fold": 0.0,
    "fold_of_calls": 0.0,
}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def governor(clock):
    return Governor(0.02, clock=clock, costs=Costs(**COSTS))


def watch(only_stage=None, has_operators=False) -> Watch:
    made = Watch("hash", None, DROPPED, None)
    made.only_stage, made.has_operators = only_stage, has_operators
    return made


def judge(governor, duration_ns, spent_ns, outcome=DROPPED, watching=None, operators=(), in_turn=False):
    evaluation = Evaluation()
    evaluation.duration_ns, evaluation.outcome = duration_ns, outcome
    evaluation.operators, evaluation.in_turn = operators, in_turn
    governor.judged(evaluation, watching, spent_ns)


def learn(governor, watching, micros, times=1):
    for _ in range(times):
        governor.learn(watching, [round(micros * 1_000)] * 32, 32, 0)


@pytest.mark.parametrize(
    ("micros", "detail", "turn_detail", "never"),
    [(1_000, "stages", "stages", True), (260, "stages", "stages", True), (150, "basic", "stages", False)],
)
def test_an_expression_gets_the_most_detail_that_half_the_budget_pays_for(
    governor, micros, detail, turn_detail, never
):
    watching = watch()
    learn(governor, watching, micros)
    assert (watching.detail, watching.turn_detail) == (detail, turn_detail)
    assert (watching.interval == NEVER) == never


def test_turns_cost_their_share_at_most(governor):
    watching = watch(has_operators=True)
    watching.marks = 20.0
    learn(governor, watching, 400)
    assert watching.turn_detail == "operators"
    cost = COSTS["judged"] + 20 * COSTS["mark"]
    assert cost / watching.interval <= 0.02 * DETAIL_SHARE * 400_000
    assert cost / (watching.interval - 1) > 0.02 * DETAIL_SHARE * 400_000


@pytest.mark.parametrize(("micros", "one_in"), [(80, 1), (10, 1), (0.05, 1)])
def test_only_calls_that_are_too_cheap_are_timed_by_sample(governor, micros, one_in):
    watching = watch(only_stage="in_memory")
    learn(governor, watching, micros)
    assert (watching.timed_one_in == one_in) == (micros == 80)
    assert watching.detail in {"stages", "basic"}


def test_the_level_follows_a_change_of_load_within_seconds(governor, clock):
    watching = watch()
    learn(governor, watching, 1_000)
    assert watching.detail == "stages"
    for _ in range(5):
        clock.now += 1.0
        learn(governor, watching, 100, times=3)
    assert watching.detail == "basic"


def test_at_a_steady_load_a_level_changes_at_most_once_in_10_seconds(governor, clock):
    """Durations around the border, where a choice without memory would swing."""
    chance = random.Random(7)  # noqa: S311
    watching, changes, level = watch(), [], None
    for _ in range(20_000):
        clock.now += 0.01
        micros = 205 * chance.lognormvariate(0, 0.4)
        governor.learn(watching, [round(micros * 1_000)] * 2, 2, 0)
        if watching.detail != level:
            level = watching.detail
            changes.append(clock.now)
    assert len(changes) > 1, "the load is not at the border"
    assert all(later - earlier >= 10.0 for earlier, later in itertools.pairwise(changes[1:]))


@pytest.mark.parametrize("detail", ["basic", "stages", "operators"])
def test_a_pinned_detail_is_that_of_every_evaluation(detail, clock):
    governor = Governor(0.02, detail, clock, Costs(**COSTS))
    watching = watch()
    for micros in (1, 100_000):
        learn(governor, watching, micros)
        assert (watching.detail, watching.turn_detail, watching.timed_one_in) == (detail, detail, 1)
    assert (watching.interval == 1) == (detail == "operators")
    assert governor.first_detail() == detail


def test_the_ratio_is_what_was_spent_to_what_was_evaluated(governor):
    assert governor.ratio() is None
    watching = watch()
    learn(governor, watching, 1_000)
    assert governor.ratio() == pytest.approx(COSTS["stages"] / 1_000_000)
    judge(governor, 1_000_000, 30_000.0)
    assert governor.ratio() == pytest.approx((32 * COSTS["stages"] + 30_000) / 33_000_000)


def test_the_ratio_is_that_of_the_last_seconds(governor, clock):
    judge(governor, 1_000_000, 900_000.0)
    assert governor.ratio() == pytest.approx(0.9)
    clock.now += 11
    governor.ratio()
    clock.now += 1
    judge(governor, 1_000_000, 10_000.0)
    assert governor.ratio() == pytest.approx(0.01)
    clock.now -= 3_600  # a clock that steps back
    assert governor.ratio() == pytest.approx(0.01)


def keep_all(governor, evaluations, duration_ns, clock=None, seconds=0.0):
    kept = 0
    for _ in range(evaluations):
        if clock is not None:
            clock.now += seconds
        if governor.affords_trace():
            kept += 1
            judge(governor, duration_ns, 400_000.0 - governor.exporting_ns, KEPT)
        else:
            judge(governor, duration_ns, 0.0)
    return kept


def test_traces_stay_within_their_share_after_the_first_ones(governor):
    kept = keep_all(governor, 20_000, 1_000_000.0)
    paid = 20_000 * 1_000_000.0 * 0.02 * TRACES_SHARE / 400_000
    assert FIRST_TRACES + paid - 3 <= kept <= FIRST_TRACES + paid + 3


def test_where_little_is_evaluated_a_trace_is_kept_now_and_then(governor, clock):
    kept = keep_all(governor, 1_000, 1_000.0, clock, 1.0)
    assert kept == pytest.approx(FIRST_TRACES + 1_000 / TRACE_EVERY_SECONDS, rel=0.05)


def test_what_finishing_takes_is_followed_by_its_median(governor):
    chance = random.Random(1)  # noqa: S311
    for _ in range(500):
        governor.finished(10_000_000 if chance.random() < 0.2 else 3_000)
    assert governor.costs.finish == pytest.approx(3_000, rel=0.3)
    assert governor.costs.cold == pytest.approx(3.0, rel=0.3)


def test_what_a_mark_takes_is_learnt_from_how_much_longer_marked_evaluations_are(governor):
    watching = watch(has_operators=True)
    learn(governor, watching, 100, times=50)
    operators = (OperatorTime("where", 0, 5, 13, 1_000, 1, 1),)
    for _ in range(400):
        judge(governor, 100_000 + 13 * 700, 5_000.0, DROPPED, watching, operators, in_turn=True)
    assert governor.costs.mark == pytest.approx(700, rel=0.1)
    assert watching.marks == pytest.approx(13, rel=0.1)


def test_what_exporting_takes_is_taken_from_the_exporters_that_measure_it(clock):
    exported = ExportCost()
    governor = Governor(0.02, clock=clock, costs=Costs(**COSTS), export_cost=exported)
    assert governor.exporting_ns == EXPORT_NS
    exported.add_spans(1_000, 9_000_000)
    assert governor.exporting_ns == 9_000
    judge(governor, 1_000_000, 1_000.0, KEPT)
    exported.add_metrics(1, 4_000)
    assert governor.ratio() == pytest.approx((1_000 + 9_000 + 4_000) / 1_000_000)


def test_calls_do_not_swing_between_timed_and_counted_at_a_steady_load(governor, clock):
    chance = random.Random(3)  # noqa: S311
    watching, changes, counted = watch(only_stage="in_memory"), [], None
    governor.costs.fold_of_calls = 100.0
    for _ in range(4_000):
        clock.now += 0.05
        learn(governor, watching, 62 * chance.lognormvariate(0, 0.1))
        if (watching.timed_one_in > 1) != counted:
            counted = watching.timed_one_in > 1
            changes.append(clock.now)
    assert all(later - earlier >= 10.0 for earlier, later in itertools.pairwise(changes[1:]))


def test_a_level_that_was_pinned_is_left_at_once(governor, clock):
    watching = watch(has_operators=True)
    learn(governor, watching, 100)
    governor.detail = "operators"
    governor.choose(watching)
    assert watching.interval == 1
    governor.detail = "auto"
    watching.changed_at = float("-inf")
    governor.choose(watching)
    assert watching.interval > 1


def test_errors_make_a_debt_that_is_paid_back_in_bounded_time(governor, clock):
    error = Outcome(True, semconv.KEPT, semconv.ERROR, 1)
    for _ in range(5_000):
        judge(governor, 1_000, 400_000.0, error)
    governor._prepaid = 0
    clock.now += (FIRST_TRACES + 2) * TRACE_EVERY_SECONDS * 2
    assert governor.affords_trace()


def test_the_first_traces_are_prepaid_and_errors_do_not_use_them_up(governor):
    error = Outcome(True, semconv.KEPT, semconv.ERROR, 1)
    for _ in range(100):
        judge(governor, 1_000, 900_000.0, error)
    kept = 0
    while governor.affords_trace():
        kept += 1
        judge(governor, 1_000, 900_000.0, KEPT)
    assert kept == FIRST_TRACES


def test_an_expression_all_of_which_is_judged_is_still_learnt_about(governor, clock):
    watching = watch(has_operators=True)
    learn(governor, watching, 30_000, times=20)
    assert watching.interval == 1
    clock.now += 20
    for _ in range(1_000):
        judge(governor, 80_000, 10_000.0, DROPPED, watching, in_turn=True)
    assert watching.mean_ns < 200_000
    assert watching.interval > 10


def test_a_collection_that_adds_up_few_says_little_of_what_adding_up_takes(governor):
    watching = watch()
    before = governor.costs.fold
    governor.learn(watching, [1_000_000], 1, 1_000_000)
    assert governor.costs.fold < before + 2_000


def test_what_is_measured_at_first_is_what_ordinary_evaluations_take(monkeypatch):
    judged = []
    finish = Recorder._finish
    monkeypatch.setattr(Recorder, "_finish", lambda *of: judged.append(of) or finish(*of))
    calibration.calibrate()
    assert 0 < len(judged) < 20, "the first ones"
