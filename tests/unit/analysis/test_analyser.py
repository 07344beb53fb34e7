"""What the analyser remembers between evaluations, and when it asks the rules."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext

from fhirpath_otel.analysis import analyser
from fhirpath_otel.analysis.analyser import Analyser
from fhirpath_otel.analysis.recent import RecentCounts
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.redaction import template_from

MS = 1_000_000


def evaluation(text="Patient.name", at=0, caller=None, template=None, **stages_ms) -> Evaluation:
    """An evaluation that ends at this second, with stages of these milliseconds."""
    made = Evaluation()
    made.expression, made.template = text, template_from(template or text)
    made.cache_hit = False
    made.end_ns = int(at * 1e9)
    made.stages.extend((stage, 0, int(ms * MS)) for stage, ms in stages_ms.items())
    made.duration_ns = sum(end for _, _, end in made.stages)
    made.caller = None if caller is None else SpanContext(*caller, is_remote=False)
    return made


def found(findings) -> list[str]:
    return [finding.rule for finding in findings]


def test_the_first_evaluation_of_an_expression_is_cold():
    analyse = Analyser()
    texts = ["Patient.where(id = '1')", "Patient.where(id = '2')"]
    made = [evaluation(text, template="Patient.where(id = ?)", parse=50, sql=10) for text in texts]
    assert [found(analyse(item)) for item in made] == [[], ["parse-dominates"]]


def test_findings_come_gravest_first():
    analyse = Analyser()
    analyse(evaluation(parse=1, in_memory=1))
    made = evaluation(parse=500, in_memory=400)
    made.obstacle = (8, 12)
    assert found(analyse(made)) == ["parse-dominates", "in-memory-fallback"]
    made = evaluation(parse=90, type_check=1, in_memory=1_500)
    made.obstacle = (8, 12)
    assert found(analyse(made)) == ["in-memory-fallback"]


def test_a_failed_evaluation_has_an_error_to_look_at_and_no_bottleneck():
    analyse = Analyser()
    for _ in range(30):
        made = evaluation("Patient..", parse=100)
        made.error_type = "syntax"
        assert analyse(made) == ()


def test_a_text_that_is_parsed_again_and_again_is_found_once_per_doubling():
    analyse = Analyser()
    analysed = [found(analyse(evaluation(at=number * 0.1, parse=0.3, sql=0.2))) for number in range(100)]
    assert [number for number, rules in enumerate(analysed, 1) if rules == ["parse-repeated"]] == [
        10,
        20,
        40,
        80,
    ]


def test_hits_of_the_cache_and_parses_that_are_minutes_apart_are_no_repetition():
    analyse = Analyser()
    for number in range(100):
        made = evaluation(parse=0.3, sql=0.2)
        made.cache_hit = True
        assert analyse(made) == ()
        assert analyse(evaluation(at=number * 10, parse=0.3, sql=0.2)) == ()


def test_a_cache_that_thrashes_is_found():
    analyse = Analyser()
    texts = [f"Patient.where(id = '{number}')" for number in range(2_000)]
    analysed = [found(analyse(evaluation(text, parse=0.3, sql=0.2))) for _ in range(10) for text in texts]
    assert analysed.count(["parse-repeated"]) == 2_000


def test_a_loop_under_one_span_of_the_caller_is_found():
    analyse = Analyser()

    def loop(span, times):
        return [
            found(analyse(evaluation(f"Patient.where(id = '{n}')", caller=(7, span), template="t", sql=0.2)))
            for n in range(times)
        ]

    assert loop(1, 9) == [[]] * 9
    assert loop(2, 10)[9] == ["n-plus-one"]
    assert loop(1, 1) == [["n-plus-one"]]


def test_without_a_caller_or_with_other_statements_there_is_no_loop():
    analyse = Analyser()
    for number in range(40):
        assert analyse(evaluation(sql=0.2)) == ()
        assert analyse(evaluation(f"Patient.name[{number}]", caller=(7, 1), sql=0.2)) == ()
        assert analyse(evaluation(caller=(7, 1), in_memory=0.2)) == ()


def test_a_short_evaluation_asks_no_rule():
    asked = []
    analyse = Analyser(rules=(lambda record, _: asked.append(record),))
    analyse(evaluation(sql=0.9))
    assert not asked
    analyse(evaluation(sql=1.1))
    assert [(record.duration, record.stages, record.length) for record in asked] == [
        (0.0011, {"sql": 0.0011}, 12)
    ]


def test_what_comes_compiled_from_a_cache_may_still_be_a_loop():
    analyse = Analyser()
    made = [evaluation(caller=(7, 1), parse=0.1, sql=0.2) for _ in range(10)]
    for item in made:
        item.cache_hit = item.compiled_before = True
    assert found(analyse(made.pop())) == []
    assert [found(analyse(item)) for item in made][-1] == ["n-plus-one"]


def test_memory_is_bounded(monkeypatch):
    for limit in ("MAX_TEXTS", "MAX_EXPRESSIONS", "MAX_GROUPS"):
        monkeypatch.setattr(analyser, limit, 10)
    analyse = Analyser()
    for number in range(100):
        analyse(evaluation(f"Patient.name[{number}]", caller=(7, number + 1), parse=1, sql=1))
    assert [len(counts) for counts in (analyse._parses, analyse._expressions, analyse._executions)] == [
        10
    ] * 3


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 50)), max_size=60), st.integers(1, 3))
def test_counts_are_those_since_a_key_was_last_forgotten(steps, capacity):
    counts, model, now = RecentCounts(capacity, 100), {}, 0
    for key, step in steps:
        now += step
        times, spent, begun = model.pop(key, (0, 0, now))
        if now - begun > 100:
            times, spent, begun = 0, 0, now
        model[key] = times + 1, spent + step, begun
        if len(model) > capacity:
            del model[next(iter(model))]
        assert counts.note(key, step, now) == model[key][:2]
    assert len(counts) == len(model)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_lock_that_is_held_at_a_fork_does_not_stop_the_child():
    counts = RecentCounts(3)
    with counts._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if counts._lock.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
