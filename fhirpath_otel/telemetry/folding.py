"""Adds a histogram that was made elsewhere to the SDK's own aggregation of it, in one go.

`Histogram.record` costs 7 µs a value, adding the counts of all values of a minute 5 µs. The SDK has no public way to do
it, so its insides are looked at first, for every reader and view: only explicit buckets with our boundaries and all
attributes can take our counts. Everything else (exponential buckets, other boundaries, filtered attributes, an SDK that
we do not know, such as 1.31) is told by `fold_places`, and then takes the values one by one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import NoOpHistogram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import Histogram

_EXPLICIT = "_ExplicitBucketHistogramAggregation"
_DROP = "_DropAggregation"
_MATCH_NAMES = ("_get_or_create_aggregation", "_lock")
_AGGREGATION_NAMES = (
    "_get_empty_bucket_counts",
    "_lock",
    "_max",
    "_min",
    "_record_min_max",
    "_sum",
    "_value",
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the counts of one histogram go; `complete` is False where somebody needs the single values."""

    matches: tuple[Any, ...] = ()
    complete: bool = False


def sdk_instrument(instrument: Histogram) -> Any:
    """What stands behind the API's proxy; None while there is nothing, or nothing that measures."""
    real = getattr(instrument, "_real_instrument", instrument)
    return None if isinstance(real, NoOpHistogram) else real


def fold_places(instrument: Any, boundaries: Sequence[float]) -> Places:
    """The SDK's places for this instrument's counts, of all its readers and views."""
    try:
        if not getattr(instrument, "_is_enabled", lambda: True)():
            return Places((), True)
        storages = instrument._measurement_consumer._reader_storages.values()  # noqa: SLF001 -- see above
        matches = [
            match
            for storage in storages
            for match in storage._get_or_init_view_instrument_match(instrument)  # noqa: SLF001
            if type(match._aggregation).__name__ != _DROP  # noqa: SLF001
        ]
        fitting = tuple(match for match in matches if _fits(match, boundaries))
    except (AttributeError, TypeError):
        return Places()
    return Places(fitting, len(fitting) == len(matches))


def fold(
    match: Any, attributes: Mapping[str, str], counts: Sequence[int], total: float, *, low: float, high: float
) -> None:
    """Adds values, as many in each bucket as `counts` says, to one place that `fold_places` gave."""
    own = dict(attributes)
    key = _key_function(match)(own)
    # Some versions discard an aggregation when it was collected: the match's lock keeps it until it has the counts.
    with match._lock:  # noqa: SLF001
        aggregation = match._get_or_create_aggregation(key, own)  # noqa: SLF001
        with aggregation._lock:  # noqa: SLF001
            before = aggregation._value or aggregation._get_empty_bucket_counts()  # noqa: SLF001
            aggregation._value = [one + other for one, other in zip(before, counts, strict=True)]  # noqa: SLF001
            aggregation._sum += total  # noqa: SLF001
            if aggregation._record_min_max:  # noqa: SLF001
                aggregation._min = min(aggregation._min, low)  # noqa: SLF001
                aggregation._max = max(aggregation._max, high)  # noqa: SLF001


def _fits(match: Any, boundaries: Sequence[float]) -> bool:
    aggregation = match._aggregation  # noqa: SLF001
    return (
        type(aggregation).__name__ == _EXPLICIT
        and tuple(aggregation._boundaries) == tuple(boundaries)  # noqa: SLF001
        and match._view._attribute_keys is None  # noqa: SLF001
        and callable(_key_function(match))
        and all(hasattr(match, name) for name in _MATCH_NAMES)
        and all(hasattr(aggregation, name) for name in _AGGREGATION_NAMES)
    )


def _key_function(match: Any) -> Callable[[dict[str, str]], Any]:
    """How the SDK makes a key of attributes; TypeError follows where it has no such function."""
    function: Callable[[dict[str, str]], Any] = getattr(
        sys.modules.get(type(match).__module__), "_hash_attributes", None
    )  # type: ignore[assignment]
    return function
