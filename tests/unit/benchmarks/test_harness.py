"""What benchmarks share: intervals that are as sure as they say, and bars that noise leaves open."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks import harness
from benchmarks.harness import Figure, Interval, Ratio


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    draw = random.Random(4)  # noqa: S311 -- chance with a seed
    found = [harness.median(draw.expovariate(1.0) for _ in range(101)) for _ in range(2_000)]
    held = sum(one.low <= 0.6931 <= one.high for one in found) / len(found)
    assert 0.93 < held < 0.99
    assert all(one.low <= one.value <= one.high for one in found)


@pytest.mark.parametrize(
    ("low", "high", "holds"), [(1.0, 1.01, True), (1.03, 1.04, False), (1.01, 1.03, None)]
)
def test_a_bar_within_the_interval_is_open(low, high, holds):
    figure = Interval((low + high) / 2, low, high).figure("a", "ratio", 1.02, pairs=3)
    assert figure.holds is holds
    assert figure.bar == "≤ 1.02"
    assert figure.limits == (low, high)
    assert figure.details == {"pairs": 3}


def test_the_closer_to_the_bar_the_more_pairs_are_needed():
    def needed(median):
        spread = Interval(median, median - 0.01, median + 0.01)
        return Ratio(spread, spread, 50).pairs_for(1.02)

    assert needed(1.01) == 200
    assert needed(1.0) == 50
    assert needed(1.019) > 10_000


def test_pairs_are_run_in_turn_and_the_pilot_of_a_bar_is_thrown_away(monkeypatch):
    runs = []
    monkeypatch.setattr(harness, "cpu_seconds", lambda function: function() or 1.0 + len(runs) % 2 / 1e3)
    found = harness.ratio_to_bar(lambda: runs.append("a"), lambda: runs.append("b"), 1.5, 10, (20, 40))
    assert found.pairs == 20
    assert len(runs) == 2 * (2 + 10 + 2 + 20)
    assert runs[4:12] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found.totals.low <= found.totals.value <= found.totals.high


def test_a_report_shows_and_writes_all_there_is_to_a_figure(tmp_path, capsys):
    figures = [
        Figure("first", 1.0, "ratio", "≤ 1.02", None, (0.9, 1.1), {"own_account": 1.01, "basic": "99.00%"}),
        Figure("second", 2_000.0, "µs"),
    ]
    harness.report("title", figures, tmp_path / "figures.json")
    printed = capsys.readouterr().out
    for text in ("title", "open", "0.9 – 1.1", "own account 1.01", "basic 99.00%", "2,000"):
        assert text in printed
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written[0]["details"] == {"own_account": 1.01, "basic": "99.00%"}
    assert written[0]["limits"] == [0.9, 1.1]
