"""Loading into DuckDB: nothing is lost, everything or nothing is stored, and the tables grow with the data."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhirpath_otel.databases import duckdb_store
from fhirpath_otel.databases.duckdb_connection import aside, cursor, interruptible, open_database
from fhirpath_otel.databases.duckdb_load import Counts, Skipped, load, structures
from fhirpath_otel.databases.sources import Reader, discover
from fhirpath_otel.errors import DatabaseError, LoadError, UsageError
from fhirpath_otel.evaluator.model import load_model

CHALMERS = '{"resourceType":"Patient","id":"p1","name":[{"family":"Chalmers","given":["Peter","James"]}]}'
LEVIN = '{"resourceType":"Patient","id":"p2","name":[{"family":"Levin"}],"active":true}'
WEIGHT = (
    '{"resourceType":"Observation","id":"o1","status":"final","valueQuantity":{"value":1.00,"unit":"kg"}}'
)


@pytest.fixture
def database(tmp_path):
    connection = open_database(tmp_path / "test.duckdb")
    yield connection
    connection.close()


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(duckdb_store, "BATCH_BYTES", 2_000)
    monkeypatch.setattr(duckdb_store, "WAITING_BYTES", 3_000)


def write(folder, *texts, name="in.ndjson"):
    path = folder / name
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="")
    return path


def stored(connection, resource_type="Patient"):
    return connection.execute(f'SELECT id, raw FROM "{resource_type}"').fetchall()


def values(connection, path, resource_type="Patient"):
    rows = connection.execute(f'SELECT {path} FROM "{resource_type}" ORDER BY id').fetchall()
    return [value for (value,) in rows]


def everything(connection):
    """All that a load can change."""
    tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
    return {
        table: (
            connection.execute(f'DESCRIBE "{schema}"."{table}"').fetchall(),
            connection.execute(f'FROM "{schema}"."{table}"').fetchall(),
        )
        for schema, table in tables
    }


class TestNothingIsLost:
    @pytest.mark.parametrize("folder", ["synthea-bundles", "synthea-bulk-10", "fhirpath-r4"])
    def test_every_text_of_the_shared_data_comes_back_in_its_order(self, database, shared_data, folder):
        report = load(database, [shared_data / folder])
        expected: dict[str, list[tuple[str, str]]] = {}
        reader = Reader(load_model().resource_types, lambda error: pytest.fail(str(error)))
        for file in discover([shared_data / folder]).files:
            for resource in reader.read(file):
                expected.setdefault(resource.type, []).append((resource.id, resource.text.decode()))
        assert {type_: stored(database, type_) for type_ in structures(database)} == expected
        assert {type_: counts.loaded for type_, counts in report.types.items()} == {
            type_: len(found) for type_, found in expected.items()
        }
        assert report.dropped == ()

    def test_every_decimal_of_the_shared_data_keeps_its_digits(self, database, shared_data):
        load(database, [shared_data / "synthea-bundles"])
        rows = database.execute("SELECT raw, r.valueQuantity.value FROM Observation").fetchall()
        expected = [
            json.loads(raw, parse_float=str, parse_int=str).get("valueQuantity", {}).get("value")
            for raw, _ in rows
        ]
        assert [value for _, value in rows] == expected
        assert len([value for value in expected if value]) > 500

    def test_digits_time_zones_and_extensions_of_primitives_are_in_the_column(self, database, tmp_path):
        text = (
            '{"resourceType":"Observation","id":"o","effectiveDateTime":"2014-12-16T05:06:58.10+10:00",'
            '"valueQuantity":{"value":0.10000000000000000001000,"_value":{"id":"v"}},"_status":{"id":"s"},'
            '"component":[{"valueQuantity":{"value":-1.50e+2}},{"valueQuantity":{"value":12345678901234567890123}}]}'
        )
        load(database, [write(tmp_path, text)])
        assert stored(database, "Observation") == [("o", text)]
        assert values(database, "r.effectiveDateTime", "Observation") == ["2014-12-16T05:06:58.10+10:00"]
        assert values(database, "r.valueQuantity.value", "Observation") == ["0.10000000000000000001000"]
        assert values(database, "r.valueQuantity._value.id || r._status.id", "Observation") == ["vs"]
        path = "list_transform(r.component, lambda c: c.valueQuantity.value)"
        assert values(database, path, "Observation") == [["-1.50e+2", "12345678901234567890123"]]

    def test_primitives_in_lists_keep_their_places(self, database, tmp_path):
        text = (
            '{"resourceType":"Patient","id":"p","birthDate":"1970","_birthDate":{"extension":[{"url":"u"}]},'
            '"name":[{"given":["A",null],"_given":[null,{"id":"g2"}]}]}'
        )
        load(database, [write(tmp_path, text)])
        assert values(database, "r.name[1].given") == [["A", None]]
        assert values(database, "r.name[1]._given") == [[None, {"id": "g2"}]]
        assert values(database, "r._birthDate.extension[1].url") == ["u"]

    def test_decimals_in_lists_keep_their_digits(self, database, tmp_path):
        text = (
            '{"resourceType":"MolecularSequence","id":"m","text":{"div":"[1.0, \\"2.0\\": 3.0] \\\\"},'
            '"quality":[{"score":{"value":1.50},'
            '"roc":{"score":[1, 2],"precision":[ 0.50 ,-1e-3, 2],"recall":[1.000]}}]}'
        )
        load(database, [write(tmp_path, text)])
        assert values(database, "r.quality[1].roc.precision", "MolecularSequence") == [["0.50", "-1e-3", "2"]]
        assert values(database, "r.quality[1].roc.score", "MolecularSequence") == [[1, 2]]
        assert values(database, "r.quality[1].score.value", "MolecularSequence") == ["1.50"]
        assert values(database, "r.text.div", "MolecularSequence") == ['[1.0, "2.0": 3.0] \\']

    @pytest.mark.parametrize(
        "unit",
        [
            'x \\"value\\": 1.0',
            "\\\\",
            '"value":2.0'.replace('"', '\\"'),
            ":1.0",
            "value",
            "\\u0022value\\u0022: 3.0",
            "",
        ],
    )
    def test_texts_that_look_like_numbers_stay_as_they_are(self, database, tmp_path, unit):
        quantity = f'{{"unit":"{unit}","value" : 1.0,"code":"{unit}"}}'
        text = f'{{"resourceType":"Observation","id":"o","valueQuantity":{quantity}}}'
        load(database, [write(tmp_path, text)])
        expected = json.loads(f'"{unit}"')
        found = database.execute(
            "SELECT r.valueQuantity.unit, r.valueQuantity.value, r.valueQuantity.code FROM Observation"
        )
        assert found.fetchall() == [(expected, "1.0", expected)]

    def test_contained_resources_are_kept_as_json(self, database, tmp_path):
        text = '{"resourceType":"Patient","id":"p","contained":[{"resourceType":"Organization","id":"c","name":"x"}]}'
        load(database, [write(tmp_path, text)])
        assert [json.loads(one) for one in values(database, "r.contained")[0]] == json.loads(text)[
            "contained"
        ]

    def test_unknown_elements_are_told_and_stay_in_the_text(self, database, tmp_path):
        text = '{"resourceType":"Patient","id":"p","name":[{"alias":1}],"active":"yes","birthDate":"1974"}'
        report = load(database, [write(tmp_path, text)])
        assert stored(database) == [("p", text)]
        assert [(one.path, one.reason) for one in report.dropped] == [
            ("Patient.name.alias", "unknown to FHIR R4"),
            ("Patient.active", "a string where a boolean is needed"),
        ]
        assert structures(database)["Patient"].dropped == ("Patient.active", "Patient.name.alias")
        assert structures(database)["Patient"].structure == {"id": "VARCHAR", "birthDate": "VARCHAR"}

    def test_types_may_be_mixed_in_a_file(self, database, tmp_path):
        report = load(database, [write(tmp_path, CHALMERS, WEIGHT, LEVIN)])
        assert report.types == {"Observation": Counts(loaded=1), "Patient": Counts(loaded=2)}
        assert stored(database) == [("p1", CHALMERS), ("p2", LEVIN)]
        assert stored(database, "Observation") == [("o1", WEIGHT)]

    @pytest.mark.usefixtures("small_batches")
    def test_order_is_kept_through_batches_and_threads(self, database, tmp_path):
        texts = [
            json.dumps({"resourceType": type_, "id": f"{number:05}", "language": "x" * (number % 70)})
            for number in range(2_000)
            for type_ in ("Patient", "Device", "Group")
        ]
        load(database, [write(tmp_path, *texts)])
        for place, type_ in enumerate(("Patient", "Device", "Group")):
            assert [raw for _, raw in stored(database, type_)] == texts[place::3]

    def test_texts_are_compressed(self, database, tmp_path):
        load(database, [write(tmp_path, *(LEVIN.replace("p2", f"p{number}") for number in range(30_000)))])
        database.execute("CHECKPOINT")
        compressions = database.execute(
            "SELECT DISTINCT compression FROM pragma_storage_info('Patient')"
            " WHERE column_name = 'raw' AND segment_type = 'VARCHAR'"
        ).fetchall()
        assert compressions == [("ZSTD",)]

    def test_the_report_counts_bytes_files_and_what_was_ignored(self, database, tmp_path):
        write(tmp_path, CHALMERS)
        write(tmp_path, "hello", name="notes.txt")
        (tmp_path / "bundle.json").write_text(
            f'{{\n"resourceType":"Bundle","entry":[{{}},{{"resource":{LEVIN}}}]}}', encoding="utf-8"
        )
        calls = []
        report = load(database, [tmp_path], progress=lambda *call: calls.append(call))
        assert (report.files, report.bytes, report.resources) == (2, len(CHALMERS) + len(LEVIN), 2)
        assert report.entries_without_resource == 1
        assert "notes.txt" in {Path(path).name for path in report.ignored}
        assert calls == sorted(calls)
        assert len({total for _, total in calls}) == 1
        assert (
            calls[-1][0]
            == calls[-1][1]
            == sum((tmp_path / name).stat().st_size for name in ("in.ndjson", "bundle.json"))
        )


class TestGrowth:
    def test_a_later_file_may_bring_new_elements_and_types(self, database, tmp_path):
        load(database, [write(tmp_path, CHALMERS)])
        before = values(database, "r.name[1].given")
        text = (
            '{"resourceType":"Patient","id":"p3","active":false,'
            '"name":[{"family":"x","period":{"start":"2020"}}],"contact":[{"gender":"male"}]}'
        )
        load(database, [write(tmp_path, text, WEIGHT)])
        assert values(database, "r.name[1].given") == [*before, None]
        assert values(database, "r.name[1].period.start") == [None, "2020"]
        assert values(database, "r.contact[1].gender") == [None, "male"]
        assert values(database, "r.valueQuantity.value", "Observation") == ["1.00"]
        assert structures(database)["Patient"].structure == {
            "id": "VARCHAR",
            "name": [{"family": "VARCHAR", "given": ["VARCHAR"], "period": {"start": "VARCHAR"}}],
            "active": "BOOLEAN",
            "contact": [{"gender": "VARCHAR"}],
        }

    def test_a_later_file_may_lack_elements(self, database, tmp_path):
        load(database, [write(tmp_path, LEVIN)])
        load(database, [write(tmp_path, '{"resourceType":"Patient","id":"p0","gender":"male"}')])
        assert values(database, "r.active") == [None, True]
        assert values(database, "r.gender") == ["male", None]

    def test_dropped_paths_add_up(self, database, tmp_path):
        load(database, [write(tmp_path, '{"resourceType":"Patient","id":"a","foo":1}')])
        load(database, [write(tmp_path, '{"resourceType":"Patient","id":"b","bar":1}')])
        assert structures(database)["Patient"].dropped == ("Patient.bar", "Patient.foo")

    def test_old_answers_stay_when_much_data_grows(self, database, shared_data, tmp_path):
        load(database, [shared_data / "synthea-bulk-10"])
        query = "SELECT id, r.name[1].family, len(r.extension), r.maritalStatus.coding[1].code FROM Patient ORDER BY id"
        before = database.execute(query).fetchall()
        text = '{"resourceType":"Patient","id":"~","extension":[{"valueAge":{"value":1.0}}],"photo":[{"url":"x"}]}'
        load(database, [write(tmp_path, text)])
        assert database.execute(query).fetchall()[:-1] == before
        assert values(database, "r.extension[1].valueAge.value")[-1] == "1.0"

    def test_a_database_opens_again_with_its_structures(self, tmp_path):
        for text in (CHALMERS, LEVIN):
            connection = open_database(tmp_path / "again.duckdb")
            load(connection, [write(tmp_path, text)])
            connection.close()
        reading = open_database(tmp_path / "again.duckdb", read_only=True)
        assert stored(reading) == [("p1", CHALMERS), ("p2", LEVIN)]
        assert list(structures(reading)["Patient"].structure) == ["id", "name", "active"]
        reading.close()

    def test_a_table_that_is_not_ours_is_left_alone(self, database, tmp_path):
        database.execute("CREATE TABLE Patient(i INTEGER)")
        with pytest.raises(DatabaseError, match="has a table Patient that was not made by a load"):
            load(database, [write(tmp_path, CHALMERS)])
        assert list(everything(database)) == ["Patient"]

    def test_a_table_that_was_changed_by_other_means_is_told(self, database, tmp_path):
        load(database, [write(tmp_path, CHALMERS)])
        database.execute('ALTER TABLE "Patient" ALTER r TYPE STRUCT(id VARCHAR)')
        with pytest.raises(DatabaseError, match="the table Patient was changed by other means than a load"):
            load(database, [write(tmp_path, LEVIN)])


class TestCopies:
    def test_the_same_text_twice_in_a_run_is_one_resource(self, database, tmp_path):
        report = load(
            database, [write(tmp_path, CHALMERS, LEVIN, CHALMERS), write(tmp_path, CHALMERS, name="b.ndjson")]
        )
        assert report.types == {"Patient": Counts(loaded=2, repeated=2)}
        assert stored(database) == [("p1", CHALMERS), ("p2", LEVIN)]

    def test_two_texts_for_one_id_in_a_run_are_an_error_with_both_places(self, database, tmp_path):
        first = write(tmp_path, LEVIN, CHALMERS, name="a.ndjson")
        second = write(tmp_path, "", CHALMERS.replace("Peter", "Pieter"), name="b.ndjson")
        for on_error in ("stop", "skip"):
            with pytest.raises(LoadError) as caught:
                load(database, [first, second], on_error=on_error)
            assert (caught.value.path, caught.value.line) == (str(second), 2)
            assert caught.value.message == (
                f"Patient/p1 is at {first}:2 already, with a different content; remove one of them"
            )
        assert structures(database) == {}

    def test_ids_are_of_a_type(self, database, tmp_path):
        device = '{"resourceType":"Device","id":"p1"}'
        assert load(database, [write(tmp_path, CHALMERS, device)]).resources == 2

    def test_a_later_run_replaces_what_changed(self, database, tmp_path):
        load(database, [write(tmp_path, CHALMERS, LEVIN)])
        changed = CHALMERS.replace("Peter", "Pieter")
        new = LEVIN.replace("p2", "p3")
        report = load(database, [write(tmp_path, changed, LEVIN, new, new)])
        assert report.types == {"Patient": Counts(loaded=1, replaced=1, unchanged=1, repeated=1)}
        assert sorted(stored(database)) == [("p1", changed), ("p2", LEVIN), ("p3", new)]
        assert values(database, "r.name[1].given[1]") == ["Pieter", None, None]

    def test_a_change_of_spacing_is_a_change_of_the_text(self, database, tmp_path):
        load(database, [write(tmp_path, CHALMERS)])
        assert load(database, [write(tmp_path, f" {CHALMERS}")]).types == {"Patient": Counts(replaced=1)}
        assert stored(database) == [("p1", f" {CHALMERS}")]

    def test_loading_all_again_changes_nothing(self, database, shared_data):
        load(database, [shared_data / "synthea-bulk-10"])
        before = {type_: stored(database, type_) for type_ in structures(database)}
        report = load(database, [shared_data / "synthea-bulk-10"])
        assert {counts.loaded + counts.replaced for counts in report.types.values()} == {0}
        assert sum(counts.unchanged for counts in report.types.values()) == 5_858
        assert {type_: stored(database, type_) for type_ in structures(database)} == before


class TestBrokenInput:
    @pytest.mark.parametrize(
        ("content", "place", "message"),
        [
            (
                f"{CHALMERS}\n{LEVIN[:-1]},}}\n",
                ":2",
                "not valid JSON: trailing comma in object (byte 78); mend it, or",
            ),
            (f"{CHALMERS}\n\n{LEVIN[:20]}\n", ":3", "not valid JSON: it ends too early; mend it, or skip"),
            (f'{CHALMERS}\n{{"id":"x"}}\n', ":2", "JSON without a resourceType is no FHIR resource; mend it"),
            (
                f'{{"resourceType":"Patiant","id":"x"}}\n{CHALMERS}\n',
                ":1",
                "unknown resource type 'Patiant'; did you",
            ),
            (
                f'{CHALMERS}\n{{"resourceType":"Patient"}}\n',
                ":2",
                "this Patient has no id, by which it could be told",
            ),
            ("", "", "the file is empty; remove it, or get it anew"),
            ("\0\1\2", "", "binary data; only JSON text can be loaded, plain or gzipped"),
            (
                '{"resourceType":"Bundle",\n"entry":[\n{"resource":{"resourceType":"X"}}]}',
                ":3",
                "unknown resource type 'X'",
            ),
        ],
    )
    def test_it_is_told_with_file_and_line_and_nothing_is_stored(
        self, database, tmp_path, content, place, message
    ):
        load(database, [write(tmp_path, WEIGHT, CHALMERS, name="before.ndjson")])
        before = everything(database)
        good = write(tmp_path, LEVIN, '{"resourceType":"Device","id":"d"}', name="good.ndjson")
        bad = tmp_path / "bad.ndjson"
        bad.write_text(content, encoding="utf-8")
        with pytest.raises(LoadError) as caught:
            load(database, [good, bad])
        assert str(caught.value).startswith(f"{bad}{place}: {message}")
        assert caught.value.exit_code == 1
        assert everything(database) == before

    def test_on_error_skip_loads_the_rest_and_lists_what_it_left_out(self, database, tmp_path):
        mixed = write(tmp_path, CHALMERS, "oops", "", '{"resourceType":"Patient"}', LEVIN)
        empty = write(tmp_path, name="empty.ndjson")
        report = load(database, [mixed, empty], on_error="skip")
        assert stored(database) == [("p1", CHALMERS), ("p2", LEVIN)]
        assert report.skipped_count == 3
        assert report.skipped == (
            Skipped(str(mixed), 2, "not valid JSON: invalid character (byte 0)"),
            Skipped(str(mixed), 4, "this Patient has no id, by which it could be told from others"),
            Skipped(str(empty), None, "the file is empty; remove it, or get it anew"),
        )

    def test_the_list_of_what_was_skipped_ends_but_the_count_does_not(self, database, tmp_path):
        report = load(database, [write(tmp_path, CHALMERS, *["oops"] * 250)], on_error="skip")
        assert (report.skipped_count, len(report.skipped)) == (250, 100)

    def test_a_load_that_skips_everything_stores_nothing(self, database, tmp_path):
        report = load(database, [write(tmp_path, "oops")], on_error="skip")
        assert (report.types, report.skipped_count) == ({}, 1)
        assert everything(database) == {}

    def test_gzip_that_is_cut_off_is_told(self, database, tmp_path):
        path = tmp_path / "in.ndjson.gz"
        path.write_bytes(gzip.compress(CHALMERS.encode())[:-5])
        with pytest.raises(LoadError, match="the gzip data is damaged or cut off"):
            load(database, [path])

    def test_a_file_that_changes_while_it_is_read_is_told(self, database, tmp_path):
        path = write(tmp_path, CHALMERS)
        total = path.stat().st_size

        def change(done, _total):
            if 0 < done < total:
                write(tmp_path, LEVIN)

        with pytest.raises(LoadError, match="it changed while it was being read; load it again"):
            load(database, [path], progress=change)
        assert everything(database) == {}

    def test_on_error_has_two_values(self, database, tmp_path):
        with pytest.raises(UsageError, match="on_error is 'stop' or 'skip', not 'ignore'"):
            load(database, [write(tmp_path, CHALMERS)], on_error="ignore")


class TestInterruption:
    @pytest.mark.usefixtures("small_batches")
    def test_ctrl_c_in_the_second_pass_leaves_the_database_as_it_was(self, database, tmp_path):
        load(database, [write(tmp_path, CHALMERS)])
        before = everything(database)
        path = write(tmp_path, *(LEVIN.replace("p2", f"p{number}") for number in range(100, 30_000)))
        settings_before = database.execute(
            "SELECT name, value FROM duckdb_settings() ORDER BY name"
        ).fetchall()

        def interrupt(done, total):
            if done > total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load(database, [path], progress=interrupt)
        assert everything(database) == before
        assert (
            database.execute("SELECT name, value FROM duckdb_settings() ORDER BY name").fetchall()
            == settings_before
        )
        assert load(database, [path]).types == {"Patient": Counts(loaded=29_900)}

    def test_ctrl_c_stops_a_statement_at_once(self, database):
        def endless():
            os.kill(os.getpid(), signal.SIGINT)
            return database.execute(
                "SELECT sum(sqrt(a.range * b.range)) FROM range(10000000) a, range(10000000) b"
            ).fetchall()

        with pytest.raises(KeyboardInterrupt):
            interruptible(database, endless)
        assert database.execute("SELECT 42").fetchall() == [(42,)]

    def test_ctrl_c_during_a_short_call_of_the_main_thread_is_an_interrupt_and_not_lost(self, database):
        def swallowing():
            try:
                return database.execute("SELECT count(*) FROM range(200_000_000) t(i) WHERE i % 7 = 3")
            except BaseException:  # noqa: BLE001 -- as DuckDB 1.5 clears what its failed import raised
                return None

        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            with pytest.raises(KeyboardInterrupt):
                aside(swallowing)()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def test_an_error_of_a_statement_is_raised_where_it_is_awaited(self, database):
        with pytest.raises(duckdb.CatalogException):
            interruptible(database, lambda: database.execute("FROM nothing"))

    def test_readers_keep_what_they_began_with(self, database, tmp_path):
        load(database, [write(tmp_path, CHALMERS, LEVIN)])
        reading = cursor(database)
        reading.execute("BEGIN")
        before = stored(reading)
        load(
            database,
            [
                write(
                    tmp_path,
                    CHALMERS.replace("Peter", "Pieter"),
                    '{"resourceType":"Patient","id":"n","gender":"male"}',
                )
            ],
        )
        assert stored(reading) == before
        reading.execute("COMMIT")
        assert len(stored(reading)) == 3

    def test_a_load_at_the_same_time_is_told(self, database, tmp_path):
        load(database, [write(tmp_path, CHALMERS)])
        other = cursor(database)
        other.execute("BEGIN")
        other.execute("DELETE FROM Patient")
        with pytest.raises(DatabaseError, match="was changed by another load at the same time; try again"):
            load(database, [write(tmp_path, CHALMERS.replace("Peter", "Pieter"))])
        other.execute("ROLLBACK")
        assert stored(database) == [("p1", CHALMERS)]


class TestOpening:
    def test_a_new_database_has_no_types(self, database):
        assert structures(database) == {}

    def test_a_database_in_memory_takes_loads(self, tmp_path):
        connection = open_database(":memory:")
        load(connection, [write(tmp_path, CHALMERS)])
        assert stored(cursor(connection)) == [("p1", CHALMERS)]
        connection.close()

    def test_a_file_may_be_opened_twice_in_a_process(self, tmp_path):
        first, second = (open_database(tmp_path / "same.duckdb") for _ in range(2))
        load(first, [write(tmp_path, CHALMERS)])
        first.close()
        assert stored(second) == [("p1", CHALMERS)]
        second.close()

    def test_a_path_with_quotes_and_spaces_opens(self, tmp_path):
        connection = open_database(tmp_path / 'it\'s "mine".duckdb')
        load(connection, [write(tmp_path, CHALMERS)])
        connection.close()

    @pytest.mark.parametrize(
        ("make", "read_only", "message"),
        [
            (
                lambda path: path.write_text("hello " * 5_000),
                False,
                "is not a DuckDB database; name another file, or remove this one",
            ),
            (
                lambda path: path.write_text(""),
                False,
                "is not a DuckDB database; name another file, or remove this one",
            ),
            (lambda path: path.mkdir(), False, "is a folder, not a database"),
            (lambda path: None, True, "does not exist; make it with: fhirpath-otel load DATABASE PATH…"),
        ],
    )
    def test_what_cannot_be_opened_is_told_in_one_sentence(self, tmp_path, make, read_only, message):
        path = tmp_path / "x.duckdb"
        make(path)
        with pytest.raises(DatabaseError) as caught:
            open_database(path, read_only=read_only)
        assert str(caught.value) == f"{path} {message}"

    @pytest.mark.parametrize("name", ["x.ndjson", "x.json", "x.csv"])
    def test_a_data_file_is_no_database(self, tmp_path, name):
        path = write(tmp_path, CHALMERS, LEVIN, name=name)
        with pytest.raises(DatabaseError, match="is not a DuckDB database"):
            open_database(path)

    def test_a_file_that_duckdb_made_by_itself_opens(self, tmp_path):
        path = tmp_path / "{plain}.duckdb"
        duckdb.connect(path).close()
        connection = open_database(path)
        load(connection, [write(tmp_path, CHALMERS)])
        again = open_database(path)
        assert stored(again) == [("p1", CHALMERS)]
        connection.close()
        again.close()
        reading = open_database(path, read_only=True)
        assert stored(reading) == [("p1", CHALMERS)]
        reading.close()

    def test_a_file_that_was_compacted_opens(self, tmp_path):
        connection = open_database(tmp_path / "first.duckdb")
        load(connection, [write(tmp_path, CHALMERS)])
        connection.close()
        with duckdb.connect(tmp_path / "small.duckdb") as copying:
            copying.execute(f"ATTACH '{tmp_path / 'first.duckdb'}' AS first")
            copying.execute("COPY FROM DATABASE first TO small")
        compacted = open_database(tmp_path / "small.duckdb")
        load(compacted, [write(tmp_path, LEVIN)])
        assert stored(compacted) == [("p1", CHALMERS), ("p2", LEVIN)]
        compacted.close()

    def test_a_missing_folder_is_told(self, tmp_path):
        path = tmp_path / "no" / "x.duckdb"
        with pytest.raises(DatabaseError, match="cannot be made: its folder does not exist"):
            open_database(path)

    def test_a_read_only_database_takes_no_loads(self, tmp_path):
        open_database(tmp_path / "x.duckdb").close()
        reading = open_database(tmp_path / "x.duckdb", read_only=True)
        with pytest.raises(DatabaseError, match="is opened read-only, so nothing can be loaded into it"):
            load(reading, [write(tmp_path, CHALMERS)])
        reading.close()

    def test_a_file_that_another_process_holds_is_told_and_stays_locked(self, tmp_path):
        path = tmp_path / "x.duckdb"
        code = (
            "import sys; from fhirpath_otel.databases.duckdb_connection import open_database\n"
            "connection = open_database(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout.readline() == "open\n"
            for _ in range(2):
                with pytest.raises(DatabaseError) as caught:
                    open_database(path)
                assert (
                    str(caught.value)
                    == f"{path} is in use by another process (PID {holder.pid}); close it there first"
                )
            holder.stdin.close()
        open_database(path).close()

    def test_a_missing_table_is_never_taken_from_a_variable(self, database):
        Patient = [1, 2, 3]  # noqa: N806, F841
        with pytest.raises(duckdb.CatalogException):
            database.execute("FROM Patient")


decimals = st.from_regex(
    re.compile(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?", re.ASCII), fullmatch=True
)
white_space = st.text(" \t", max_size=2)
strings = st.text(max_size=20) | st.sampled_from(
    ['"value": 1.0', ',"value":2.0', "\\", '\\"', ":1.0", "\\u0041"]
)


@st.composite
def observations(draw):
    """An Observation as text, its decimals, and its strings."""
    space = draw(white_space)

    def member(key, text):
        return f'{space}"{key}"{space}:{space}{text}{space}'

    def quantity():
        value, unit = draw(decimals), draw(strings)
        members = [member("value", value), member("unit", json.dumps(unit, ensure_ascii=draw(st.booleans())))]
        numbers.append(value)
        units.append(unit)
        return f"{{{','.join(draw(st.permutations(members)))}}}"

    numbers: list[str] = []
    units: list[str] = []
    components = ",".join(
        f"{{{member('valueQuantity', quantity())}}}" for _ in range(draw(st.integers(1, 4)))
    )
    members = [
        member("component", f"[{components}]"),
        member("foo", draw(st.sampled_from(["1.50", "[1.0]", '{"value":"x"}', "null"]))),
        member("note", f"[{{{member('text', json.dumps(draw(strings)))}}}]"),
    ]
    body = ",".join(draw(st.permutations(members)))
    return f'{{"resourceType":"Observation","id":"{{id}}",{body}}}', numbers, units


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(observations(), min_size=1, max_size=8))
def test_random_resources_survive_with_their_digits(tmp_path, made):
    texts = [text.replace("{id}", str(number)) for number, (text, _, _) in enumerate(made)]
    connection = open_database(":memory:")
    try:
        load(connection, [write(tmp_path, *texts)])
        assert stored(connection, "Observation") == [(str(number), text) for number, text in enumerate(texts)]
        rows = connection.execute(
            "SELECT list_transform(r.component, lambda c: c.valueQuantity.value),"
            " list_transform(r.component, lambda c: c.valueQuantity.unit) FROM Observation"
        ).fetchall()
        assert rows == [(numbers, units) for _, numbers, units in made]
        assert all(Decimal(value) is not None for numbers, _ in rows for value in numbers)
    finally:
        connection.close()
