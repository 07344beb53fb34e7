"""Policies from other packages: asked in their place, and never able to do harm."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from fhirpath_otel.sampling.own_policies import MOST, own_policies
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry.evaluation import Evaluation


class Measure:
    """Keeps evaluations with many results."""

    reason = "many_results"

    def matches(self, evaluation):
        return (evaluation.result_count or 0) > 100


class EntryPoint:
    def __init__(self, name, offered):
        self.name = name
        self.offered = offered

    def load(self):
        if isinstance(self.offered, Exception):
            raise self.offered
        return self.offered


def made(reason="own", matches=lambda _: True):
    return type("Policy", (), {"reason": reason, "matches": staticmethod(matches)})


@pytest.fixture
def lost():
    return Counter()


@pytest.fixture
def load(lost):
    def load(*offered):
        return own_policies(
            lambda what, reason: lost.update([(what, reason)]),
            [EntryPoint(f"p{number}", item) for number, item in enumerate(offered)],
        )

    return load


def sampler(own):
    settings = Settings(baseline_rate=0.0, max_expressions=0)
    return TailSampler(Reasons(settings, own=own).policies, 100.0)


def evaluation(error_type=None, result_count=200):
    noted = Evaluation()
    noted.error_type, noted.result_count = error_type, result_count
    return noted


@pytest.mark.parametrize("offered", [Measure, Measure(), lambda: Measure()])  # noqa: PLW0108 -- a function is the case
def test_a_class_an_object_or_a_function_gives_a_policy(load, offered):
    sample = sampler(load(offered))
    assert (sample(evaluation()).kept, sample(evaluation()).reason) == (True, "many_results")
    assert not sample(evaluation(result_count=1)).kept


def test_errors_come_before_policies_of_yours_and_those_before_the_others(load):
    own = load(made())
    assert sampler(own)(evaluation("syntax")).reason == "error"
    slow = evaluation()
    slow.duration_ns = 10**12
    assert sampler(own)(slow).reason == "own"


def test_each_has_a_bucket_of_its_own(load):
    settings = Settings(baseline_rate=0.0, max_expressions=0)
    own = load(made("first", lambda e: e.result_count == 1))
    sample = TailSampler(Reasons(settings, own=own).policies, 1.0, lambda: 0.0)
    decisions = [sample(evaluation(result_count=1)) for _ in range(3)]
    assert [decision.kept for decision in decisions] == [True, False, False]
    assert sample(evaluation("syntax")).kept


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (ImportError("CANARY"), "ImportError"),
        (object, "it has no method matches(evaluation)"),
        (made("Not A Reason"), "its reason is not 1 to 40"),
        (made(None), "its reason is not 1 to 40"),
        (made("slow"), "its reason is taken"),
    ],
)
def test_one_that_cannot_be_used_is_counted_said_and_skipped(load, lost, caplog, offered, why):
    with caplog.at_level(logging.DEBUG):
        assert load(offered, Measure)[0].reason == "many_results"
    assert lost == {("policy", "not_loaded"): 1}
    [record] = caplog.records
    assert why in record.getMessage()
    assert "CANARY" not in caplog.text


def test_two_of_one_reason_are_one(load, lost, caplog):
    assert len(load(made(), made())) == 1
    assert lost == {("policy", "not_loaded"): 1}


def test_there_are_only_so_many(load, lost, caplog):
    assert len(load(*(made(f"p{number}") for number in range(MOST + 2)))) == MOST
    assert lost == {("policy", "not_loaded"): 2}


def test_one_that_raises_is_counted_said_once_and_does_not_match(load, lost, caplog):
    def fail(_):
        raise RuntimeError("CANARY")

    sample = sampler(load(made("fails", fail), Measure))
    assert [sample(evaluation()).reason for _ in range(3)] == ["many_results"] * 3
    assert lost == {("policy", "internal_error"): 3}
    assert len(caplog.records) == 1
    assert "CANARY" not in caplog.text


def test_what_is_installed_is_found():
    assert own_policies(lambda *_: None) == ()
