"""Calls that may hang, such as flushing to a collector that is away, and callers who wait no longer than they want to.

Each target has a thread of its own, made beforehand: at the interpreter's exit no thread can start any more (Python
3.12), and a target that hangs must cost neither the others their last data, nor one more thread at each attempt.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue

from fhirpath_otel.telemetry.forks import call_in_forked_child

Function = Callable[..., object]

_logger = logging.getLogger("fhirpath_otel")


@dataclass(slots=True)
class Call:
    """A call that was asked for. `succeeded` tells, once it has `ended`, that it neither raised nor returned False."""

    function: Function
    seconds: float
    ended: threading.Event = field(default_factory=threading.Event)
    succeeded: bool = False

    def run(self) -> None:
        """Makes the call, with its time as `timeout_millis` if it takes that."""
        try:
            bounded = "timeout_millis" in inspect.signature(self.function).parameters
            result = self.function(timeout_millis=self.seconds * 1000) if bounded else self.function()
            self.succeeded = result is not False
        except Exception as error:  # noqa: BLE001 -- the message may quote what was to be exported
            _logger.warning("telemetry was not handed over completely (%s)", type(error).__name__)
        finally:
            self.ended.set()


class OwnThread:
    """Makes the calls of one target, one after the other. A forked child has its own, with nothing to do."""

    def __init__(self) -> None:
        self._begin_anew()
        call_in_forked_child(self._begin_anew)

    def ask(self, function: Function, seconds: float) -> Call:
        """Asks for a call; while the same one is waiting for its turn, that one does for both.

        Where no thread could start, the caller makes it.
        """
        with self._lock:
            call = self._waiting.get(function)
            if call is not None:
                return call
            call = Call(function, seconds)
            if self._works:
                self._waiting[function] = call
                self._calls.put(call)
                return call
        call.run()
        return call

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Function, Call] = {}
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._works = True
        try:
            threading.Thread(target=self._work, name="fhirpath_otel calls", daemon=True).start()
        except RuntimeError:  # The interpreter is about to exit.
            self._works = False

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            with self._lock:
                del self._waiting[call.function]
            call.run()


def call_all(calls: Iterable[tuple[OwnThread, Function]], seconds: float) -> bool:
    """Makes the calls side by side; True if all of them succeeded in this time."""
    deadline = time.monotonic() + seconds
    asked = [thread.ask(function, max(0.0, seconds)) for thread, function in calls]
    ended = [call.ended.wait(max(0.0, deadline - time.monotonic())) for call in asked]
    return all(ended) and all(call.succeeded for call in asked)
