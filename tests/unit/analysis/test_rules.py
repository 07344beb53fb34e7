"""Each rule as a pure function: what it finds, and what looks alike but is healthy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel import semconv
from fhirpath_otel.analysis import rules
from fhirpath_otel.analysis.rules import ADVICE, RULES, Record, Repeats, reached
from fhirpath_otel.analysis.thresholds import Thresholds

DEFAULTS = Thresholds()


def record(duration=0.1, **facts) -> Record:
    return Record(duration=duration, length=20, **facts)


def test_the_names_of_rules_are_those_of_the_table():
    names = tuple(rule.__name__.replace("_", "-") for rule in RULES)
    assert names == semconv.RULES
    assert set(ADVICE) == set(names)


@pytest.mark.parametrize(
    ("rule", "stage"), [(rules.parse_dominates, "parse"), (rules.type_check_dominates, "type_check")]
)
def test_a_stage_of_the_compilation_dominates(rule, stage):
    found = rule(record(stages={stage: 0.05, "sql": 0.05}), DEFAULTS)
    assert (found.rule, found.severity, found.stage) == (
        f"{stage}-dominates".replace("_", "-"),
        "warning",
        stage,
    )
    assert (found.start, found.end, found.saving) == (0, 20, 0.05)
    assert found.evidence == {"duration": 0.1, f"{stage}.duration": 0.05, "share": 0.5}
    assert found.advice == ADVICE[found.rule]
    for healthy in (
        record(stages={stage: 0.04, "sql": 0.06}),
        record(stages={stage: 0.05}, cold=True),
        record(0.0009, stages={stage: 0.0008}),
        record(0.0, stages={stage: 0.0}),
        record(stages={"sql": 0.1}),
    ):
        assert rule(healthy, DEFAULTS) is None


def test_a_fall_back_to_memory_names_the_place_of_the_obstacle():
    found = rules.in_memory_fallback(record(stages={"in_memory": 0.08}, obstacle=(8, 15)), DEFAULTS)
    assert (found.rule, found.severity, found.stage) == ("in-memory-fallback", "warning", "in_memory")
    assert (found.start, found.end, found.saving) == (8, 15, pytest.approx(0.072))
    assert found.advice == ADVICE[found.rule]
    for healthy in (
        record(stages={"in_memory": 0.08}),  # as asked
        record(0.0009, stages={"in_memory": 0.0008}, obstacle=(8, 15)),
        record(stages={"sql": 0.08}, obstacle=(8, 15)),
    ):
        assert rules.in_memory_fallback(healthy, DEFAULTS) is None


def test_the_same_text_is_parsed_again_and_again():
    found = rules.parse_repeated(record(stages={"parse": 0.05}, parses=Repeats(10, 0.5)), DEFAULTS)
    assert (found.rule, found.severity, found.stage) == ("parse-repeated", "warning", "parse")
    assert found.saving == pytest.approx(0.45)
    assert found.evidence == {"parses": 10.0, "parse.duration": 0.5, "share": 0.5}
    assert found.advice == ADVICE[found.rule]
    for healthy in (
        record(parses=Repeats(9, 0.5)),
        record(parses=Repeats(11, 0.5)),
        record(parses=Repeats(10, 0.0009)),
    ):
        assert rules.parse_repeated(healthy, DEFAULTS) is None


def test_parsing_again_what_is_a_small_part_of_the_evaluation_is_worth_a_note_only():
    facts = {"stages": {"parse": 0.009}, "parses": Repeats(10, 0.5)}
    assert rules.parse_repeated(record(**facts), DEFAULTS).severity == "info"
    assert rules.parse_repeated(record(0.0, **facts), DEFAULTS).severity == "info"


def test_the_same_statement_is_executed_again_and_again():
    found = rules.n_plus_one(record(executions=Repeats(20, 2.0)), DEFAULTS)
    assert (found.rule, found.severity, found.stage) == ("n-plus-one", "critical", "sql")
    assert found.saving == pytest.approx(1.9)
    assert found.evidence == {"executions": 20.0, "sql.duration": 2.0}
    assert found.advice == ADVICE[found.rule]
    for healthy in (
        record(executions=Repeats(9, 2.0)),
        record(executions=Repeats(21, 2.0)),
        record(executions=Repeats(10, 0.0009)),
    ):
        assert rules.n_plus_one(healthy, DEFAULTS) is None


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [(0.0049, "info"), (0.005, "warning"), (0.999, "warning"), (1.0, "critical")],
)
def test_the_severity_follows_from_the_saving(seconds, severity):
    assert rules.parse_dominates(record(seconds, stages={"parse": seconds}), DEFAULTS).severity == severity


def test_repetition_is_said_whenever_the_number_has_doubled():
    assert [times for times in range(1_001) if reached(times, 10)] == [10, 20, 40, 80, 160, 320, 640]
    assert [times for times in range(10) if reached(times, 1)] == [1, 2, 4, 8]
    assert not reached(0, 0)


seconds = st.floats(0, 1e6)
repeats = st.builds(Repeats, st.integers(0, 10**6), seconds)
records = st.builds(
    Record,
    duration=seconds,
    stages=st.dictionaries(st.sampled_from(semconv.STAGES), seconds),
    length=st.integers(0, 10**6),
    cold=st.booleans(),
    obstacle=st.none() | st.tuples(st.integers(0, 100), st.integers(0, 100)),
    parses=repeats,
    executions=repeats,
)


@given(records)
def test_rules_are_pure_and_hold_numbers_and_static_text_only(given_record):
    for rule in RULES:
        found = rule(given_record, DEFAULTS)
        assert found == rule(given_record, DEFAULTS)
        if found is not None:
            assert found.rule == rule.__name__.replace("_", "-")
            assert found.severity in semconv.SEVERITIES
            assert found.stage in semconv.STAGES
            assert found.advice == ADVICE[found.rule]
            assert found.saving >= 0
            assert all(isinstance(value, float) for value in found.evidence.values())
