from __future__ import annotations

import pytest

from fhirpath_otel.reports.durations import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 µs"),
        (3e-7, "0.30 µs"),
        (0.000012345, "12.3 µs"),
        (0.000999, "999 µs"),
        (0.0009999, "1.00 ms"),
        (0.00123, "1.23 ms"),
        (0.0456, "45.6 ms"),
        (0.789, "789 ms"),
        (1.0, "1.00 s"),
        (99.99, "100 s"),
        (4000, "4000 s"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (30_460_169, "30.5 MB"),
        (999_600, "1.00 MB"),
        (2.5e12, "2500 GB"),
    ],
)
def test_a_size_has_three_digits_and_a_unit(count, text):
    assert size(count) == text
