"""The order of items through several row groups and threads, and answers while the stored structure grows."""

from __future__ import annotations

import json

import duckdb
import pytest

import fhirpath_otel as fo

PATIENTS = 130_000  # more than a row group of DuckDB, which has 122,880
PATIENT = """
    SELECT '{"resourceType":"Patient","id":"' || i || '","active":' || (i % 3 = 0)
        || ',"multipleBirthInteger":' || i
        || ',"name":[{"use":"official","given":["' || i || 'a","' || i || 'b"]},{"given":["' || i || 'c"]}]}'
    FROM range($1) AS numbers(i)
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("many") / "patients.ndjson"
    with duckdb.connect() as connection:
        texts = connection.execute(PATIENT, [PATIENTS]).fetchall()
    path.write_text("\n".join(text for (text,) in texts))
    with fo.connect(":memory:") as opened:
        opened.load(path)
        opened._connection.execute("SET threads TO 4")
        yield opened


@pytest.mark.parametrize(
    ("expression", "items"),
    [
        ("Patient.id", lambda i: [str(i)]),
        ("Patient.name.given", lambda i: [f"{i}a", f"{i}b", f"{i}c"]),
        ("Patient.name.where(use = 'official').given", lambda i: [f"{i}a", f"{i}b"]),
        ("Patient.name.given.where($index != 1)", lambda i: [f"{i}a", f"{i}c"]),
        ("Patient.where(active).name.last().given", lambda i: [f"{i}c"] if i % 3 == 0 else []),
        ("Patient.name.given.count() + multipleBirth.ofType(integer)", lambda i: [i + 3]),
    ],
)
def test_items_come_in_the_order_of_resources_and_of_items(database, expression, items):
    expected = [(str(i), item) for i in range(PATIENTS) for item in items(i)]
    with database.evaluate(expression) as result:
        assert result.mode == "sql"
        assert result.fetchall() == expected


FIRST = {"id": "1", "active": True, "name": [{"family": "Ada", "given": ["A"]}], "multipleBirthInteger": 2}
SECOND = {
    "id": "2",
    "gender": "female",
    "birthDate": "1990-01-02",
    "_birthDate": {"extension": [{"url": "urn:time", "valueDateTime": "1990-01-02T03:04:05Z"}]},
    "multipleBirthBoolean": True,
    "name": [{"use": "official", "family": "Bea", "_family": {"id": "f"}, "period": {"start": "2000"}}],
    "contact": [{"name": {"family": "Cy"}}],
    "extension": [{"url": "urn:weight", "valueDecimal": 12.5}],
}
GROWN = [
    ("Patient.name.family", ["Ada"], ["Bea"]),
    ("Patient.name.given", ["A"], []),
    ("Patient.name.where(use = 'official').family", [], ["Bea"]),
    ("Patient.name.period.start", [], ["2000"]),
    ("Patient.contact.name.family", [], ["Cy"]),
    ("Patient.multipleBirth", [2], [True]),
    ("Patient.multipleBirth is boolean", [False], [True]),
    ("Patient.birthDate.extension.value.ofType(dateTime)", [], ["1990-01-02T03:04:05Z"]),
    ("Patient.birthDate.exists()", [False], [True]),
    ("Patient.extension.value.ofType(decimal) > 12", [], [True]),
    ("Patient.gender = 'female' or active", [True], [True]),
    ("Patient.contact.count()", [0], [1]),
]


def load(database: fo.Database, folder, resource: dict) -> None:
    path = folder / f"{resource['id']}.ndjson"
    path.write_text(json.dumps({"resourceType": "Patient", **resource}))
    database.load(path)


def answers(database: fo.Database) -> list[list[tuple[str, object]]]:
    found = []
    for expression, _, _ in GROWN:
        with database.evaluate(expression) as result:
            assert result.mode == "sql"
            found.append(result.fetchall())
    return found


def test_old_answers_stay_when_the_structure_grows(tmp_path):
    of_first = [[("1", item) for item in first] for _, first, _ in GROWN]
    of_second = [[("2", item) for item in second] for _, _, second in GROWN]
    with fo.connect(":memory:") as database:
        load(database, tmp_path, FIRST)
        assert answers(database) == of_first
        load(database, tmp_path, SECOND)
        assert answers(database) == [one + other for one, other in zip(of_first, of_second, strict=True)]


def test_a_result_that_is_being_read_keeps_the_data_it_began_with(tmp_path):
    with fo.connect(":memory:") as database:
        load(database, tmp_path, FIRST)
        with database.evaluate("Patient.name.family") as result:
            load(database, tmp_path, SECOND)
            assert result.fetchall() == [("1", "Ada")]


def test_wider_numbers_that_come_later_are_computed_exactly_too(tmp_path):
    expression = "Patient.extension.value.ofType(decimal) * 2"
    with fo.connect(":memory:") as database:
        load(database, tmp_path, {"id": "1", "extension": [{"url": "urn:weight", "valueDecimal": 1.5}]})
        with database.evaluate(expression) as result:
            assert [str(value) for _, value in result] == ["3"]
        wide = {"url": "urn:weight", "valueDecimal": 123456789012.25}
        load(database, tmp_path, {"id": "2", "extension": [wide]})
        with database.evaluate(expression) as result:
            assert [str(value) for _, value in result] == ["3", "246913578024.5"]
