"""Trace files: private, bounded, whole lines, and no trouble for the host whatever the disk does."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fhirpath_otel.telemetry.local_files import read_traces

local_traces = pytest.importorskip(
    "fhirpath_otel.local_traces", reason="needs the extra `local`", exc_type=ImportError
)
MAX_AGE_SECONDS, TraceFileExporter = local_traces.MAX_AGE_SECONDS, local_traces.TraceFileExporter

MIB = 1024 * 1024


def spans(*names):
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for name in names:
        provider.get_tracer("test").start_span(name, attributes={"number": 7, "list": ["a", "b"]}).end()
    return memory.get_finished_spans()


class Lost(list):
    def __call__(self, *what):
        self.append(what)


@pytest.fixture
def lost():
    return Lost()


@pytest.fixture
def exporter(tmp_path, lost):
    made = TraceFileExporter(tmp_path / "state" / "traces", MIB, lost)
    yield made
    made.shutdown()


def test_spans_are_read_again_as_they_were_written(exporter):
    written = spans("one", "two")
    assert exporter.export(written) is SpanExportResult.SUCCESS
    exporter.export(spans("three"))
    read = read_traces(exporter.path)
    assert [span.name for span in read] == ["one", "two", "three"]
    assert read[0].trace_id == f"{written[0].context.trace_id:032x}"
    assert read[0].attributes == {"number": 7, "list": ["a", "b"]}
    assert (read[0].start_ns, read[0].end_ns) == (written[0].start_time, written[0].end_time)


def test_file_and_directory_are_the_users_alone(exporter):
    exporter.export(spans("one"))
    assert stat.S_IMODE(exporter.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(exporter.path.parent.stat().st_mode) == 0o700


def test_without_spans_there_is_no_file(exporter, tmp_path):
    assert exporter.path is None
    assert list(tmp_path.iterdir()) == []


def test_a_process_keeps_its_newest_spans_within_the_size_and_counts_those_removed(tmp_path, lost):
    exporter = TraceFileExporter(tmp_path, 8_000, lost)
    for number in range(40):
        exporter.export(spans(str(number)))
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) <= 8_000
    kept = [int(span.name) for span in read_traces(tmp_path)]
    assert kept == list(range(40 - len(kept), 40))
    assert {entry[:2] for entry in lost} == {("span", "file_rotated")}
    assert sum(count for _, _, count in lost) == 40 - len(kept)


def test_spans_that_cannot_fit_are_counted(tmp_path, lost):
    exporter = TraceFileExporter(tmp_path, 100, lost)
    assert exporter.export(spans("one", "two")) is SpanExportResult.FAILURE
    assert lost == [("span", "file_error", 2)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_writes_to_its_own_file(exporter):
    exporter.export(spans("parent"))
    child = os.fork()
    if child == 0:
        exporter.export(spans("child"))
        os._exit(0)
    os.waitpid(child, 0)
    exporter.export(spans("parent again"))
    names = {file: [span.name for span in read_traces(file)] for file in exporter.path.parent.iterdir()}
    assert names.pop(exporter.path) == ["parent", "parent again"]
    assert list(names.values()) == [["child"]]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_that_is_held_at_a_fork_does_not_stop_the_child(exporter):
    with exporter._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if exporter._lock.acquire(blocking=False) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_full_disk_costs_one_warning_is_counted_and_leaves_whole_lines(exporter, lost, monkeypatch, caplog):
    exporter.export(spans("before"))
    real = os.write
    with monkeypatch.context() as disk, caplog.at_level(logging.WARNING):
        disk.setattr(local_traces.os, "write", lambda descriptor, line: real(descriptor, line[:10]))
        assert exporter.export(spans("half", "half")) is SpanExportResult.FAILURE
        disk.setattr(
            local_traces.os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))
        )
        assert exporter.export(spans("none")) is SpanExportResult.FAILURE
    exporter.export(spans("after"))
    assert lost == [("span", "file_error", 2), ("span", "file_error", 1)]
    [record] = caplog.records
    assert str(exporter.path.parent) in record.getMessage()
    assert len(exporter.path.read_bytes().splitlines()) == 2
    assert [span.name for span in read_traces(exporter.path)] == ["before", "after"]


def test_a_directory_that_cannot_be_made_costs_one_warning(tmp_path, lost, caplog):
    (tmp_path / "file").write_text("in the way")
    exporter = TraceFileExporter(tmp_path / "file" / "traces", MIB, lost)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert exporter.export(spans("one")) is SpanExportResult.FAILURE
    assert [record.name for record in caplog.records] == ["fhirpath_otel"]
    assert len(lost) == 3


def test_a_file_that_was_removed_meanwhile_is_made_anew(exporter):
    exporter.export(spans("one"))
    exporter.path.unlink()
    exporter.export(spans("two"))
    assert [span.name for span in read_traces(exporter.path)] == ["two"]


def test_files_of_long_ago_are_removed_and_others_stay(tmp_path, lost):
    old, recent, foreign = (tmp_path / name for name in ("1-1.otlp.jsonl", "2-2.otlp.jsonl", "notes.txt"))
    for file in (old, recent, foreign):
        file.touch()
    for file in (old, foreign):
        os.utime(file, (0, time.time() - MAX_AGE_SECONDS - 60))
    exporter = TraceFileExporter(tmp_path, MIB, lost)
    exporter.export(spans("one"))
    exporter.shutdown()
    assert set(tmp_path.iterdir()) == {recent, foreign, exporter.path}
