"""The benchmark of overhead runs, with every way of watching; what it measures is not looked at here."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("fhirpathpy")
pytest.importorskip("grpc")

from benchmarks import growth, memory, overhead, works

TINY = overhead.Effort(
    warm_up=0.0,
    pairs=3,
    pairs_to_bar=(3, 3),
    growth=growth.Effort(1, 64, ((1, 1), (2, 3))),
    memory=memory.Effort(1, 640, (20,)),
)


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(works, "MANY_ROWS", 50)
        return list(overhead.measure(tmp_path_factory.mktemp("overhead"), TINY))


def test_every_work_is_watched_in_every_way(figures):
    names = {figure.name for figure in figures}
    ways = (
        *("alone", "alone again: the noise", "auto, no SDK"),
        *(f"{detail}, OTLP/HTTP" for detail in ("off", "basic", "stages", "operators", "auto")),
        "auto, OTLP/gRPC",
        *("plain SDK spans, root only", "plain SDK spans, root and stages"),
        *("a monitor's 10 %, 1 % if busy", "a monitor's 10 %", "a monitor's 100 %"),
    )
    assert {f"{work}: {way}" for work in works.WORKS for way in ways} <= names


def test_a_bar_stands_where_something_is_promised(figures):
    barred = {figure.name for figure in figures if figure.bar is not None}
    for work in works.WORKS:
        assert {f"{work}: auto, OTLP/HTTP", f"{work}: auto, OTLP/gRPC"} <= barred
    for way in growth.WAYS:
        assert f"{way}, no SDK: an evaluation" in barred
        assert f"{way}, OTEL_SDK_DISABLED: an evaluation" in barred
    assert sum(name.startswith("memory") for name in barred) == 2


def test_each_level_records_what_it_says(figures):
    details = {figure.name: figure.details for figure in figures}
    assert details["small pipeline: stages, OTLP/HTTP"]["stages"] == "100.00%"
    assert details["small pipeline: basic, OTLP/HTTP"]["basic"] == "100.00%"
    assert details["large pipeline: operators, OTLP/HTTP"]["operators_one_in"] == 1
    assert set(details["small pipeline: off, OTLP/HTTP"]) == {"pairs"}
    assert "own_account" in details["fhirpathpy: auto, OTLP/gRPC"]


def test_every_figure_is_a_number(figures):
    assert all(math.isfinite(figure.value) for figure in figures)
