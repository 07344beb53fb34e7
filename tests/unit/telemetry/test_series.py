"""Sums that were made here are, to the SDK and its readers, the same as values recorded one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import view
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import folding
from fhirpath_otel.telemetry.series import FoldedCounter, FoldedHistogram

METRIC = semconv.STAGE_DURATION
NANOSECONDS = 10**9
ATTRIBUTES = {"fhirpath.stage": "parse", "fhirpath.engine.name": "x"}
DELTA = {sdk.Histogram: AggregationTemporality.DELTA, sdk.Counter: AggregationTemporality.DELTA}
EXPONENTIAL = {sdk.Histogram: view.ExponentialBucketHistogramAggregation()}

# Whether this SDK's insides are the ones that are known: with others, such as 1.31's, only the fallback is tested.
FOLDS = hasattr(
    __import__("opentelemetry.sdk.metrics._internal._view_instrument_match", fromlist=["x"]),
    "_hash_attributes",
)


def points(reader: InMemoryMetricReader, name: str = METRIC.name) -> list[Any]:
    data = reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


@dataclass
class Sdk:
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    views: tuple[view.View, ...] = ()
    more_readers: tuple[InMemoryMetricReader, ...] = ()

    def __post_init__(self) -> None:
        readers = [self.reader, *self.more_readers]
        self.provider = sdk.MeterProvider(readers, views=self.views, shutdown_on_exit=False)
        self.meter = self.provider.get_meter("test")
        self.histogram = FoldedHistogram(self.meter, METRIC, NANOSECONDS, 10)
        self.histogram.look()

    def note(self, *values: int) -> None:
        for value in values:
            self.histogram.series(ATTRIBUTES).note(value, None)


VALUES = st.lists(st.integers(0, 2 * 10**11) | st.sampled_from([10**4, 2 * 10**4, 10**11]), min_size=1)


@pytest.mark.parametrize("temporality", [{}, DELTA])
@settings(deadline=None)
@given(intervals=st.lists(VALUES, min_size=1, max_size=3))
def test_sums_are_what_the_sdk_makes_of_the_values(temporality, intervals):
    ours = Sdk(InMemoryMetricReader(preferred_temporality=temporality))
    theirs = InMemoryMetricReader(preferred_temporality=temporality)
    plain = sdk.MeterProvider([theirs], shutdown_on_exit=False).get_meter("test")
    plain_histogram = plain.create_histogram(
        METRIC.name, explicit_bucket_boundaries_advisory=METRIC.boundaries
    )
    assert ours.histogram.folds == FOLDS
    for values in intervals:
        ours.note(*values)
        ours.histogram.fold()
        for value in values:
            plain_histogram.record(value / NANOSECONDS, ATTRIBUTES)
        [one], [other] = points(ours.reader), points(theirs)
        assert (one.count, one.bucket_counts, one.explicit_bounds, dict(one.attributes)) == (
            other.count,
            other.bucket_counts,
            other.explicit_bounds,
            dict(other.attributes),
        )
        assert (one.min, one.max) == (other.min, other.max)
        assert one.sum == pytest.approx(other.sum, rel=1e-12)


def test_what_was_folded_is_not_folded_again():
    ours = Sdk()
    ours.note(1000, 2000)
    for _ in range(3):
        ours.histogram.fold()
    [point] = points(ours.reader)
    assert (point.count, point.sum) == (2, 3e-6)


def test_every_reader_gets_all_of_it():
    delta = InMemoryMetricReader(preferred_temporality=DELTA)
    ours = Sdk(more_readers=(delta,))
    ours.note(1000)
    ours.histogram.fold()
    assert [point.count for point in points(delta)] == [1]
    ours.note(1000, 1000)
    ours.histogram.fold()
    assert [point.count for point in points(ours.reader)] == [3]
    assert [point.count for point in points(delta)] == [2]


NAMED = {"instrument_name": METRIC.name}


@pytest.mark.parametrize(
    "sdk_",
    [
        Sdk(views=(view.View(**NAMED, attribute_keys={"fhirpath.stage"}),)),
        Sdk(views=(view.View(**NAMED, aggregation=view.ExplicitBucketHistogramAggregation([1, 2])),)),
        Sdk(views=(view.View(**NAMED, aggregation=view.ExponentialBucketHistogramAggregation()),)),
        Sdk(views=(view.View(**NAMED, name="twice"), view.View(**NAMED, attribute_keys=set()))),
        Sdk(InMemoryMetricReader(preferred_aggregation=EXPONENTIAL)),
    ],
    ids=["attribute filter", "other boundaries", "exponential", "one of two views", "exponential reader"],
)
def test_views_that_need_single_values_get_them(sdk_):
    assert not sdk_.histogram.folds
    sdk_.note(1000, 3000)
    sdk_.histogram.fold()
    found = points(sdk_.reader) + points(sdk_.reader, "twice")
    assert found
    assert {(point.count, point.sum, point.min, point.max) for point in found} == {(2, 4e-6, 1e-6, 3e-6)}


@pytest.mark.skipif(not FOLDS, reason="this SDK takes no counts")
def test_a_view_that_drops_gets_nothing_and_stops_nobody():
    sdk_ = Sdk(
        views=(
            view.View(**NAMED, aggregation=view.DropAggregation()),
            view.View(**NAMED, name="seen"),
        )
    )
    assert sdk_.histogram.folds
    sdk_.note(1000)
    sdk_.histogram.fold()
    assert not points(sdk_.reader)
    sdk_.note(1000)
    sdk_.histogram.fold()
    assert [point.count for point in points(sdk_.reader, "seen")] == [2]


@pytest.mark.parametrize("name", ["_get_or_create_aggregation", "_lock", "_view"])
def test_an_sdk_whose_insides_are_others_does_not_fold(name):
    ours = Sdk()
    [storage] = ours.histogram.instrument._measurement_consumer._reader_storages.values()
    matches = storage._get_or_init_view_instrument_match(ours.histogram.instrument)

    class Unknown:
        _aggregation = matches[0]._aggregation

        def __getattr__(self, other):
            return getattr(known if other != name else None, other)

    known, matches[:] = matches[0], [Unknown()]
    ours.histogram.look()
    assert not ours.histogram.folds


def test_without_folding_every_value_is_recorded_at_once(monkeypatch):
    monkeypatch.setattr(folding, "fold_places", lambda *_: folding.Places())
    ours = Sdk()
    ours.note(1000, 3000)
    [point] = points(ours.reader)
    assert (point.count, point.sum) == (2, 4e-6)


@pytest.mark.parametrize("thing", [object(), None, NoOpMeter("x").create_histogram("x")])
def test_what_is_no_instrument_of_the_sdk_has_no_places(thing):
    assert folding.fold_places(thing, METRIC.boundaries) == folding.Places()


def test_a_value_with_a_span_is_recorded_at_once_and_gives_the_exemplar():
    ours = Sdk()
    span = trace.NonRecordingSpan(trace.SpanContext(0xA, 0xB, False, trace.TraceFlags(1)))
    ours.note(1000)
    ours.histogram.series(ATTRIBUTES).note(2000, trace.set_span_in_context(span))
    ours.histogram.fold()
    [point] = points(ours.reader)
    assert (point.count, point.sum) == (2, 3e-6)
    assert [(item.trace_id, item.value) for item in point.exemplars] == [(0xA, 2e-6)]


def test_beyond_the_limit_series_share_one():
    ours = Sdk()
    for number in range(30):
        ours.histogram.series({"a": str(number)}, {"a": "other"}).note(1, None)
    ours.histogram.fold()
    counts = {point.attributes["a"]: point.count for point in points(ours.reader)}
    assert len(counts) == 11
    assert counts["other"] == 20


@pytest.mark.parametrize("folds", [True, False])
def test_counters_count_the_same_whether_their_sums_wait_or_not(folds):
    ours = Sdk()
    counter = FoldedCounter(ours.meter, semconv.TRACES, 2)
    counter.folds = folds
    for number in range(5):
        counter.series({"a": str(number)}, {"a": "other"}).add(None)
    counter.fold()
    counter.fold()
    counts = {point.attributes["a"]: point.value for point in points(ours.reader, semconv.TRACES.name)}
    assert counts == {"0": 1, "1": 1, "other": 3}


def test_an_sdk_that_fails_at_folding_loses_one_fold_and_then_gets_single_values(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    ours = Sdk()
    ours.note(1000, 1000)
    monkeypatch.setattr(folding, "fold", fail)
    assert ours.histogram.fold() == (2 if FOLDS else 0)
    monkeypatch.undo()
    ours.note(3000)
    assert ours.histogram.fold() == 0
    assert not ours.histogram.folds
    [point] = points(ours.reader)
    assert (point.count, point.max) == ((1, 3e-6) if FOLDS else (3, 3e-6))


@pytest.mark.skipif(not hasattr(sdk.MeterProvider, "add_metric_reader"), reason="this SDK adds no readers")
def test_a_reader_that_is_added_and_needs_single_values_gets_the_ones_after_the_next_fold():
    ours = Sdk()
    ours.note(1000)
    exponential = InMemoryMetricReader(preferred_aggregation=EXPONENTIAL)
    ours.provider.add_metric_reader(exponential)
    ours.histogram.fold()
    ours.note(2000, 3000)
    ours.histogram.fold()
    assert [point.count for point in points(ours.reader)] == [3]
    assert [(point.count, point.min) for point in points(exponential)] == [(2, 2e-6)]
