"""Which expressions are watched, and what their evaluations left behind."""

from __future__ import annotations

from fhirpath_otel.telemetry.long_expressions import GROWTH_OVER, MOST_EXPRESSIONS, LongExpressions


def test_what_is_new_may_take_long():
    assert LongExpressions().expects("new")


def test_what_was_short_is_not_expected_to_take_long_until_it_does():
    expressions = LongExpressions()
    expressions.note_short("a")
    assert not expressions.expects("a")
    expressions.note_long("a", None)
    assert expressions.expects("a")


def test_what_took_long_stays_expected_until_it_was_short_many_times():
    expressions = LongExpressions()
    expressions.note_long("a", 1)
    for _ in range(GROWTH_OVER - 1):
        expressions.note_short("a")
    assert expressions.expects("a")
    expressions.note_short("a")
    assert not expressions.expects("a")


def test_growth_is_the_sum_over_the_last_evaluations_from_two_on():
    expressions = LongExpressions()
    assert expressions.note_long("a", 5) is None
    assert expressions.note_long("a", -2) == 3
    assert expressions.note_long("a", None) is None
    for _ in range(GROWTH_OVER):
        growth = expressions.note_long("a", 10)
    assert growth == 10 * GROWTH_OVER


def test_the_table_is_bounded_and_short_ones_do_not_displace():
    expressions = LongExpressions()
    for number in range(MOST_EXPRESSIONS):
        expressions.note_long(str(number), 1)
    assert not expressions.expects("new")
    expressions.note_short("new")
    assert expressions.expects("0")
    expressions.note_long("new", 1)
    assert expressions.expects("new")
    assert not expressions.expects("0")
    assert len(expressions._known) == MOST_EXPRESSIONS
