from __future__ import annotations

import json
from pathlib import Path

import pytest

from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry.local_files import SpanRecord, read_traces, traces_directory

SPAN = {
    "traceId": "0af7651916cd43dd8448eb211c80319c",
    "spanId": "b7ad6b7169203331",
    "parentSpanId": "00f067aa0ba902b7",
    "name": "fhirpath parse",
    "startTimeUnixNano": "1700000000000000001",
    "endTimeUnixNano": 1700000000000000009,
    "attributes": [
        {"key": "text", "value": {"stringValue": "a"}},
        {"key": "number", "value": {"intValue": "7"}},
        {"key": "seconds", "value": {"doubleValue": 0.5}},
        {"key": "flag", "value": {"boolValue": True}},
        {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": 1}]}}},
    ],
    "status": {"code": 2},
}


def line(*spans):
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]})


def test_a_span_is_read_with_its_values(tmp_path):
    file = tmp_path / "a.otlp.jsonl"
    file.write_text(line(SPAN) + "\n")
    assert read_traces(file) == [
        SpanRecord(
            trace_id="0af7651916cd43dd8448eb211c80319c",
            span_id="b7ad6b7169203331",
            parent_span_id="00f067aa0ba902b7",
            name="fhirpath parse",
            start_ns=1700000000000000001,
            end_ns=1700000000000000009,
            attributes={"text": "a", "number": 7, "seconds": 0.5, "flag": True, "list": ["x", 1]},
            status_error=True,
        )
    ]


@pytest.mark.parametrize("status", [{}, {"code": 0}, {"code": 1}, None, {"code": "STATUS_CODE_OK"}])
def test_a_span_without_an_error_or_a_parent_is_read(tmp_path, status):
    file = tmp_path / "a.otlp.jsonl"
    file.write_text(line({**SPAN, "status": status, "parentSpanId": ""}))
    [span] = read_traces(file)
    assert (span.status_error, span.parent_span_id) == (False, None)


@pytest.mark.parametrize(
    "broken",
    [
        line(SPAN)[:-40],
        "",
        "null",
        "[]",
        '{"resourceSpans": 5}',
        line({"name": "no ids"}),
        line({**SPAN, "startTimeUnixNano": "soon"}),
        line({**SPAN, "attributes": [{"key": "a", "value": {}}]}),
        "\x00\x00",
    ],
)
def test_a_broken_line_is_skipped_and_the_others_stay(tmp_path, broken):
    file = tmp_path / "a.otlp.jsonl"
    file.write_text(f"{line(SPAN)}\n{broken}\n{line(SPAN, SPAN)}\n{broken}")
    assert len(read_traces(file)) == 3


def test_a_directory_stands_for_all_its_trace_files_in_order(tmp_path):
    for name in ("2", "1"):
        (tmp_path / f"{name}.otlp.jsonl").write_text(line({**SPAN, "name": name}))
    (tmp_path / "notes.txt").write_text("not a trace")
    assert [span.name for span in read_traces(tmp_path)] == ["1", "2"]


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(OSError, match="absent"):
        read_traces(tmp_path / "absent")


@pytest.mark.parametrize(
    ("setting", "environ", "expected"),
    [
        ("", {"XDG_STATE_HOME": "/state"}, Path("/state/fhirpath-otel/traces")),
        ("", {}, Path.home() / ".local/state/fhirpath-otel/traces"),
        ("", {"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/fhirpath-otel/traces"),
        ("/elsewhere", {"XDG_STATE_HOME": "/state"}, Path("/elsewhere")),
        ("~/traces", {}, Path.home() / "traces"),
    ],
)
def test_traces_lie_in_the_users_state_directory_or_where_the_setting_says(setting, environ, expected):
    assert traces_directory(Settings(traces_directory=setting), environ) == expected
