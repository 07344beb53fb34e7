"""Calls that may hang: nobody waits longer than asked, and no more threads than targets."""

from __future__ import annotations

import os
import threading

import pytest

from fhirpath_otel import bounded_calls
from fhirpath_otel.bounded_calls import Call, OwnThread, call_all


class Calls(list):
    def good(self, timeout_millis=30_000):
        self.append(timeout_millis)

    def bad(self):
        raise RuntimeError("CANARY")

    def unfinished(self):
        return False


class Hanging:
    """A target that hangs until it is released."""

    def __init__(self):
        self.begun, self.release, self.times = threading.Event(), threading.Event(), 0

    def flush(self):
        self.times += 1
        self.begun.set()
        self.release.wait()


def test_one_call_that_fails_does_not_cost_the_others_and_its_message_stays_out(caplog):
    calls = Calls()
    assert not call_all([(OwnThread(), calls.bad), (OwnThread(), calls.good)], 4.0)
    assert calls == [4000.0]
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry was not handed over completely (RuntimeError)"
    ]


def test_what_says_it_is_not_done_is_not_done():
    calls = Calls()
    assert call_all([(OwnThread(), calls.good)], 4.0)
    assert not call_all([(OwnThread(), calls.good), (OwnThread(), calls.unfinished)], 4.0)


def test_a_target_that_hangs_costs_one_thread_however_often_it_is_asked():
    hanging, own, calls = Hanging(), OwnThread(), Calls()
    assert not call_all([(own, hanging.flush)], 0)
    hanging.begun.wait()
    before = threading.active_count()
    for _ in range(50):
        assert not call_all([(own, hanging.flush)], 0)
    assert call_all([(OwnThread(), calls.good)], 4.0), "another target is not held up"
    assert threading.active_count() == before + 1
    hanging.release.set()
    assert call_all([(own, hanging.flush)], 4.0)
    assert hanging.times in {2, 3}, "all that waited were one call"


def test_a_target_has_its_thread_before_it_is_asked(monkeypatch):
    calls, own = Calls(), OwnThread()

    def fail(_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(bounded_calls.threading.Thread, "start", fail)
    assert call_all([(own, calls.good)], 4.0)


def test_where_no_thread_can_start_the_caller_makes_the_call(monkeypatch):
    def fail(_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    calls = Calls()
    monkeypatch.setattr(bounded_calls.threading.Thread, "start", fail)
    assert call_all([(OwnThread(), calls.good)], 4.0)
    assert calls == [4000.0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_thread_of_its_own_and_not_what_the_parent_waits_for():
    hanging, own, calls = Hanging(), OwnThread(), Calls()
    call_all([(own, hanging.flush), (own, calls.good)], 0)
    hanging.begun.wait()
    child = os.fork()
    if child == 0:
        succeeded = call_all([(own, calls.good)], 30.0)
        os._exit(0 if succeeded and len(calls) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hanging.release.set()


def test_a_call_that_takes_no_time_is_made_without_one():
    calls = []
    call = Call(lambda: calls.append("made"), 1.0)
    call.run()
    assert (call.succeeded, call.ended.is_set(), calls) == (True, True, ["made"])
