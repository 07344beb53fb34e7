"""The size of this process, by whatever the platform has for it."""

from __future__ import annotations

import builtins
import mmap
import os
import resource
import sys
from types import SimpleNamespace

import pytest

from fhirpath_otel.telemetry import resident_memory
from fhirpath_otel.telemetry.resident_memory import ResidentMemory

MEGABYTES = 2**20


@pytest.fixture
def without_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)


@pytest.fixture
def without_proc(monkeypatch):
    monkeypatch.setattr(resident_memory, "_STATM", "/nowhere/statm")


def allocated(memory: ResidentMemory) -> int:
    """By how much the size grows with 40 MB that are new from the operating system, and written to."""
    before = memory.read()
    with mmap.mmap(-1, 40 * MEGABYTES) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        after = memory.read()
    return after - before


def test_with_psutil_the_size_is_its(monkeypatch):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=7))
    assert ResidentMemory().read() == 7


def test_the_size_grows_by_what_is_allocated():
    memory = ResidentMemory()
    assert not memory.only_peaks
    assert allocated(memory) > 30 * MEGABYTES


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/self/statm")
def test_without_psutil_the_size_comes_from_proc(without_psutil):
    memory = ResidentMemory()
    assert not memory.only_peaks
    assert allocated(memory) > 30 * MEGABYTES


def test_without_both_only_the_peak_is_known(without_psutil, without_proc):
    memory = ResidentMemory()
    assert memory.only_peaks
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    assert memory.read() >= peak > MEGABYTES


def test_the_peak_is_in_bytes_on_macos_too(without_psutil, without_proc, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ResidentMemory().read() < 2 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_where_nothing_tells_it_is_said_once(without_psutil, without_proc, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "resource", None)
    memory = ResidentMemory()
    assert [memory.read(), memory.read()] == [None, None]
    [record] = caplog.records
    assert "not measured" in record.getMessage()


def test_a_reading_that_fails_later_is_absent_and_said_once(without_psutil, monkeypatch, caplog):
    memory = ResidentMemory()

    def refuse(*_, **__):
        raise OSError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        assert [memory.read(), memory.read()] == [None, None]
    assert memory.read() > MEGABYTES
    [record] = caplog.records
    assert "OSError" in record.getMessage()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("psutil", [True, False])
def test_a_forked_child_reads_its_own_size(psutil, monkeypatch):
    if psutil:
        pytest.importorskip("psutil")
    else:
        monkeypatch.setitem(sys.modules, "psutil", None)
    memory = ResidentMemory()
    child = os.fork()
    if child == 0:
        os._exit(0 if allocated(memory) > 30 * MEGABYTES else 1)
    assert os.waitpid(child, 0)[1] == 0
