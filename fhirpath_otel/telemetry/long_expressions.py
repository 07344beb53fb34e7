"""Which expressions take long, and what their evaluations left behind in memory."""

from __future__ import annotations

MOST_EXPRESSIONS = 1_000
"""Expressions that are known. Beyond that only those that take long displace others."""

GROWTH_OVER = 20
"""Evaluations whose memory is added up; so many short ones in a row make an expression a short one."""


class _Known:
    __slots__ = ("deltas", "short")

    def __init__(self) -> None:
        self.deltas: tuple[int, ...] = ()
        self.short = 0


class LongExpressions:
    """A bounded table by the hash of the expression's template.

    Without a lock: each step is one operation of a dict, and of two evaluations of one expression that end at the
    same moment one may miss in a sum.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def expects(self, key: str) -> bool:
        """Whether an evaluation may take long: it did before, or nothing is known and there is room to learn it."""
        known = self._known.get(key)
        return len(self._known) < MOST_EXPRESSIONS if known is None else known.short < GROWTH_OVER

    def note_short(self, key: str) -> None:
        """Notes an evaluation that did not take long."""
        known = self._known.get(key)
        if known is not None:
            known.short += 1
        elif len(self._known) < MOST_EXPRESSIONS:
            known = self._known[key] = _Known()
            known.short = GROWTH_OVER

    def note_long(self, key: str, delta: int | None) -> int | None:
        """Notes what a long evaluation added, if that was measured; returns the sum over the last ones.

        None where fewer than two were measured.
        """
        known = self._known.pop(key, None) or _Known()
        known.short = 0
        if delta is not None:
            known.deltas = (*known.deltas, delta)[-GROWTH_OVER:]
        if len(self._known) >= MOST_EXPRESSIONS:
            self._forget_oldest()
        self._known[key] = known
        return sum(known.deltas) if delta is not None and len(known.deltas) > 1 else None

    def _forget_oldest(self) -> None:
        """The one that was first seen, or took long, the longest time ago."""
        try:
            self._known.pop(next(iter(self._known)), None)
        except (RuntimeError, StopIteration):  # Another thread was faster.
            return
