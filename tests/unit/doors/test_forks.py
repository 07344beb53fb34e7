"""A forked child has the parent's groups in its memory: it exports none of them, and no lock is held in it for ever."""

from __future__ import annotations

import os
import threading

import pytest
from opentelemetry import trace

from fhirpath_otel.telemetry.evaluation import Evaluation

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    # Threads are part of what is tested, and what a fork with threads may do.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

HASH = {"fhirpath.expression.hash": "ab" * 8}


class Ids:
    def premade(self, _=None):
        return 1, 2, None


def in_child(function):
    """The exit code of a child that runs the function: 0 if that is true within 10 s."""
    child = os.fork()
    if child == 0:
        told = []
        worker = threading.Thread(target=lambda: told.append(function()), daemon=True)
        worker.start()
        worker.join(10)
        os._exit(0 if told == [True] else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("kind", ["processor", "exporter"])
def test_a_child_forgets_what_its_parent_held_and_works(make_doors, kind):
    doors = make_doors(kind)
    tracer = doors.tracer()
    root = tracer.start_span("parent", attributes=HASH)
    tracer.start_span("held", trace.set_span_in_context(root)).end()
    doors.drivers.join(doors.door)
    noted = Evaluation(trace.set_span_in_context(root))
    premade = doors.drivers.open(noted, Ids())
    driver = doors.tracer("driver").start_span(
        "driver", trace.set_span_in_context(trace.NonRecordingSpan(premade))
    )
    driver.end()
    taken, release = threading.Event(), threading.Event()

    def hold():
        with doors.door._router.groups._lock, doors.drivers._lock, doors.door._closing:
            taken.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()

    def child():
        tracer.start_span("child", attributes=HASH).end()
        doors.door.shutdown()
        return doors.names() == ["child"] and ("driver_span", "undecided") not in doors.counts.seen

    try:
        assert in_child(child) == 0
    finally:
        release.set()
        holder.join()
    root.end()
    assert sorted(doors.names()) == ["held", "parent"]
