"""A short soak: everything is accounted for, and the program says so where it is not."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("grpc")

from benchmarks import soak
from fhirpath_otel import semconv


@pytest.fixture(scope="module")
def run():
    return soak.soak(4_000)


def test_every_evaluation_and_every_span_is_accounted_for(run):
    assert run.evaluations == 4_000
    accounted = [figure for figure in soak.accounting(run) if figure.bar is not None]
    assert len(accounted) == 7
    assert [figure.name for figure in accounted if not figure.holds] == []


def test_what_shall_happen_in_a_soak_happens(run):
    reasons = {reason for _, reason in run.host.counts(semconv.TRACES)}
    assert {
        *(semconv.ERROR, semconv.FIRST_SIGHTING, semconv.SLOW, semconv.BASELINE, semconv.FORCED),
        *(semconv.NOT_SELECTED, semconv.UNSAMPLED_PARENT),
    } <= reasons
    assert run.host.exporter.taken > 0
    assert run.host.counts(semconv.LOST)[semconv.WHAT_SPAN, semconv.EXPORT_FAILED] > 0
    engines = {key[0] for key in run.host.counts(semconv.STAGE_DURATION)} | {
        key[1] for key in run.host.counts(semconv.STAGE_DURATION)
    }
    assert {"fhirpathpy", semconv.SCOPE} <= engines
    assert run.host.counts(semconv.EVALUATIONS)[semconv.STAGE_DETAIL,] > 0


def test_the_program_fails_where_a_span_is_not_accounted_for(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["soak", "--quick", "--json", str(tmp_path / "soak.json")])
    monkeypatch.setattr(soak, "soak", lambda _: run)
    soak.main()
    monkeypatch.setattr(run.host.exporter, "taken", run.host.exporter.taken - 1)
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == 1
    assert "NO" in capsys.readouterr().out
    written = json.loads((tmp_path / "soak.json").read_text())
    assert [one["name"] for one in written if one["holds"] is False] == [
        "spans exported or lost, of those handed over"
    ]


def test_growth_is_the_slope_in_kilobytes_per_million():
    line = [(place / 10, 50.0 + place / 100 + (-1) ** place / 1e3) for place in range(40)]
    found = soak.growth(line)
    assert found.low < 102.4 < found.high
    assert found.value == pytest.approx(102.4, rel=0.01)
    flat = soak.growth([(place / 10, 50.0) for place in range(40)])
    assert (flat.value, flat.low, flat.high) == (0.0, 0.0, 0.0)
