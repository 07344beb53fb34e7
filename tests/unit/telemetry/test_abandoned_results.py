"""Results that nobody reads to their end, and that Python's garbage collector finds, are counted once."""

from __future__ import annotations

import gc

import pytest

from fhirpath_otel.databases.duckdb import DuckDBDatabase
from fhirpath_otel.telemetry.recorder import Decision


@pytest.mark.parametrize("in_cycle", [True, False])
def test_a_result_that_is_garbage_ends_its_evaluation_once(make_telemetry, tmp_path, in_cycle):
    (tmp_path / "p.ndjson").write_text('{"resourceType": "Patient", "id": "a", "active": true}\n')
    telemetry = make_telemetry(lambda _: Decision(False, "not_selected"))
    with DuckDBDatabase(":memory:", telemetry.recorder) as database:
        database.load(tmp_path / "p.ndjson")
        for _ in range(30):
            result = database.evaluate("Patient.active")
            if in_cycle:
                ring = [result]
                ring.append(ring)
                del ring
            del result
        gc.collect()
        database.evaluate("Patient.active").fetchall()
    [point] = telemetry.points("fhirpath.evaluation.duration")
    assert point.count == 31
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    assert not telemetry.points("fhirpath.telemetry.dropped")
