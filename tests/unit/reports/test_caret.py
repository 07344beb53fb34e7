"""The place under the text: input and expected output in pairs."""

from __future__ import annotations

import pytest

from fhirpath_otel.reports.caret import caret, printable


@pytest.mark.parametrize(
    ("text", "start", "end", "lines"),
    [
        ("Patient.birthdate", 8, 17, ("Patient.birthdate", "        ^^^^^^^^^")),
        ("1 +", 3, 4, ("1 +", "   ^")),
        ("", 0, 1, ("", "^")),
        ("a", 99, 100, ("a", " ^")),
        ("a\n  .b\n  .c", 6, 7, ("  .b", "    ^")),
        ("a\n  .b\n  .c", 4, 11, ("  .b", "  ^^")),
        ("a\t.b", 3, 4, ("a .b", "   ^")),
        ("a\x1b[31m.b", 7, 8, ("a�[31m.b", "       ^")),
        ("'患者'.b", 5, 6, ("'患者'.b", "       ^")),
        ("'患者'.b", 1, 3, ("'患者'.b", " ^^^^")),
        ("'e\u0301'.b", 5, 6, ("'e\u0301'.b", "    ^")),
        ("'\u202eabc'.b", 7, 8, ("'�abc'.b", "       ^")),
        ("'\ud800'.b", 4, 5, ("'�'.b", "    ^")),
    ],
)
def test_carets_stand_under_the_place(text, start, end, lines):
    assert caret(text, start, end) == "\n".join(lines)


@pytest.mark.parametrize(("start", "end"), [(0, 2), (17, 19), (50, 52), (40, 90), (90, 91), (98, 100)])
def test_a_long_text_is_cut_around_the_place(start, end):
    text = "0123456789" * 10

    shown, marks = caret(text, start, end, width=20).split("\n")

    assert len(shown) <= 20
    assert len(marks) <= 20
    place = text[start:end]
    marked = shown[marks.index("^") : marks.rindex("^") + 1]
    assert place.startswith(marked)
    assert (marked == place) or shown.endswith("…")


def test_megabytes_before_the_place_cost_nothing():
    text = "a." * 5_000_000 + "b"

    shown, marks = caret(text, len(text) - 1, len(text)).split("\n")

    assert shown.endswith("a.b")
    assert marks.endswith("^")
    assert len(shown) <= 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines", "two�lines"),
        ("\x07bell", "�bell"),
        ("\x9b31mred", "�31mred"),
        ("Þórsdóttir 患者", "Þórsdóttir 患者"),
    ],
)
def test_printable_text_cannot_move_the_cursor(text, shown):
    assert printable(text) == shown
