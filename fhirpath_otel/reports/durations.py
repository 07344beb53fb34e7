"""Durations and sizes as people read them: three digits and a unit."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`1.23 s`, `45.6 ms`, `789 µs`."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * scale
        if value >= 0.9995:
            return f"{value:.{_places(value)}f} {unit}"
    return f"{seconds * 1e6:.2f} µs"


def size(count: float) -> str:
    """`12.3 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.{0 if unit == 'B' else _places(count)}f} {unit}"
        count /= 1000
    return f"{count:.{_places(count)}f} GB"


def _places(value: float) -> int:
    return 0 if value >= 99.95 else 1 if value >= 9.995 else 2
