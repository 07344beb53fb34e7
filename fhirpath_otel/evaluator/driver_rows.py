"""Rows of a database whose driver makes spans of its own: they get our SQL span as their parent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fhirpath_otel.evaluator.result import Row, Rows
from fhirpath_otel.telemetry.driver_context import current_parent

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from fhirpath_otel.telemetry.operators import OperatorTime


class DriverRows:
    """The rows that `start` gives. `parent` is current while the database is called, and only then.

    A result may be read in another context or thread than it was started in: each call enters and leaves by itself.
    """

    def __init__(self, parent: SpanContext, start: Callable[[], Rows]) -> None:
        self._parent = parent
        with current_parent(parent):
            self._rows = start()

    @property
    def sql_active_ns(self) -> int:
        """How long the database has worked for them so far."""
        return self._rows.sql_active_ns

    @property
    def in_memory_active_ns(self) -> int | None:
        """How long the in-memory engine has worked, where it does."""
        return self._rows.in_memory_active_ns

    @property
    def operators(self) -> tuple[OperatorTime, ...]:
        """What the operators of the expression did so far, where that is noted."""
        return self._rows.operators

    def batches(self) -> Iterator[list[Row]]:
        """Raises what the rows raise."""
        batches = self._rows.batches()
        while True:
            with current_parent(self._parent):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Lets go of what the database holds for them."""
        self._rows.close()
