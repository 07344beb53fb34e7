"""Numbers are exact from the text of a resource to the answer: no digit is lost, none is made up."""

from __future__ import annotations

import json
from decimal import Context, Decimal, localcontext

import pytest

import fhirpath_otel as fo

MODES = ("sql", "memory")


@pytest.fixture
def observations(tmp_path):
    """A database of Observations with these texts as their values, with the ids 0, 1, …"""
    opened = []

    def load(*values: str) -> fo.Database:
        head = '{"resourceType":"Observation","status":"final","code":{"text":"c"}'
        lines = [
            f'{head},"id":"{number}","valueQuantity":{{"value":{value}}}}}'
            for number, value in enumerate(values)
        ]
        path = tmp_path / "observations.ndjson"
        path.write_text("\n".join(lines), encoding="utf-8")
        database = fo.connect(":memory:")
        opened.append(database)
        database.load(path)
        return database

    yield load
    for database in opened:
        database.close()


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Patients with the least, some and the greatest Integer."""
    path = tmp_path_factory.mktemp("patients") / "patients.ndjson"
    path.write_text(
        "\n".join(
            json.dumps({"resourceType": "Patient", "id": str(number), "multipleBirthInteger": number})
            for number in (-(2**31), -7, 7, 2**31 - 1)
        )
    )
    with fo.connect(":memory:") as database:
        database.load(path)
        yield database


def answers(database: fo.Database, expression: str, mode: str) -> list:
    with database.evaluate(expression, resource_type="Observation", mode=mode) as result:
        return [value for _, value in result]


VALUE = "value.ofType(Quantity).value"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0.1 + 0.2 = 0.3", True),
        ("0.1 + 0.2", Decimal("0.3")),
        ("1.1 * 1.1 = 1.21", True),
        ("0.1 * 3 - 0.3", Decimal(0)),
        ("1 / 3", Decimal("0.33333333")),
        ("2 / 3", Decimal("0.66666667")),
        ("-2 / 3", Decimal("-0.66666667")),
        ("1 / 200000000", Decimal("0.00000001")),
        ("-1 / 200000000", Decimal("-0.00000001")),
        ("1 / 200000001", Decimal(0)),
        ("1.5 / 0.5", Decimal(3)),
        ("6 / 2 = 3.0", True),
        ("7 div 2", 3),
        ("-7 div 2", -3),
        ("7 div -2", -3),
        ("5.5 div 0.7", 7),
        ("7 mod 3", 1),
        ("-7 mod 3", -1),
        ("7 mod -3", 1),
        ("5.5 mod 0.7", Decimal("0.6")),
        ("-5.5 mod 0.7", Decimal("-0.6")),
        ("12345678901234567.5 * 10000.25", Decimal("123459875432070983641.875")),
        ("1.00000000000000000000000001 > 1", True),
        ("0.1 = 0.10000", True),
        ("(0.1 | 0.10 | 0.2).count()", 2),
        ("(0.1 | 0.25).first() > 0.05", True),
        ("(0.1 | 0.25).where($this > 0.2).first() + 0.01", Decimal("0.26")),
        ("(1 + 1).where($this = 2) * 2.5", Decimal(5)),
    ],
)
def test_literals_are_computed_exactly(observations, mode, expression, expected):
    assert answers(observations("1"), expression, mode) == [expected]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "expression", ["1 / 0", "1.5 / 0.0", "7 div 0", "7 mod 0", "7.5 mod 0", "1 / (1 - 1)"]
)
def test_what_is_divided_by_zero_is_nothing(observations, mode, expression):
    assert answers(observations("1"), expression, mode) == []


WHOLE = "1234567890123456789012345678"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", [WHOLE, "0." + WHOLE, f"{WHOLE[:14]}.{WHOLE[14:]}", f"-{WHOLE}"])
def test_28_digits_survive(observations, mode, text):
    database = observations(text, "0")
    assert [str(value) for value in answers(database, VALUE, mode)] == [text, "0"]
    literal = f"({text})"
    assert answers(database, f"{VALUE} = {literal}", mode) == [True, False]
    assert answers(database, f"{VALUE} > {literal} - 1.0", mode) == [True, Decimal(text) < 1]
    tenth = Decimal("0.1")
    with many_digits():
        assert answers(database, f"{VALUE} + 0.1", mode) == [Decimal(text) + tenth, tenth]
        assert answers(database, f"{VALUE} * 3", mode) == [Decimal(text) * 3, 0]


def many_digits():
    return localcontext(Context(prec=100))


@pytest.mark.parametrize("mode", MODES)
def test_digits_come_back_as_they_were_written(observations, mode):
    texts = ["1.50", "0.00", "100", "0.10000000000000000001", "-7.0"]
    assert [str(value) for value in answers(observations(*texts), VALUE, mode)] == texts


@pytest.mark.parametrize("mode", MODES)
def test_numbers_of_very_different_size_are_compared_exactly(observations, mode):
    database = observations("99999999999999999999", "0.00000001", "99999999999999999998.99999999", "-5")
    assert answers(database, f"{VALUE} >= 99999999999999999999", mode) == [True, False, False, False]
    assert answers(database, f"{VALUE} > 0", mode) == [True, True, True, False]
    assert answers(database, f"{VALUE} - 0.00000001", mode) == [
        Decimal("99999999999999999998.99999999"),
        Decimal(0),
        Decimal("99999999999999999998.99999998"),
        Decimal("-5.00000001"),
    ]


@pytest.mark.parametrize("values", [("1e40", "2"), ("1.5e2", "2"), (f"0.{'0' * 30}1", "1" * 20)])
def test_what_sql_cannot_hold_exactly_is_computed_in_memory(observations, values):
    database = observations(*values)
    with database.evaluate(f"{VALUE} > 1.5", resource_type="Observation") as result:
        assert result.mode == "memory"
        assert [value for _, value in result] == [Decimal(value) > Decimal("1.5") for value in values]


def test_an_exponent_in_the_data_comes_back(observations):
    assert answers(observations("1.5e2", "2"), VALUE, "auto") == [150, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("calculation", "expected"),
    [
        ("+ 1", [1 - 2**31, -6, 8]),
        ("- 1", [-8, 6, 2**31 - 2]),
        ("* 2", [-14, 14]),
        ("* 1.0", [-(2**31), -7, 7, 2**31 - 1]),
        ("+ 0.5", [Decimal("-2147483647.5"), Decimal("-6.5"), Decimal("7.5"), Decimal("2147483647.5")]),
        ("div -1", [7, -7, 1 - 2**31]),
        ("mod 4", [0, -3, 3, 3]),
        ("- 2147483647 + 2147483647", [7, 2**31 - 1]),
    ],
)
def test_an_integer_beyond_32_bits_is_nothing(patients, mode, calculation, expected):
    expression = f"Patient.multipleBirth.ofType(integer) {calculation}"
    with patients.evaluate(expression, mode=mode) as result:
        values = [value for _, value in result]
    assert values == expected
    assert {type(value) for value in values} == {type(expected[0]) if "." not in calculation else Decimal}


@pytest.mark.parametrize("mode", MODES)
def test_the_sign_of_an_integer_is_changed_within_32_bits(patients, mode):
    with patients.evaluate("-Patient.multipleBirth.ofType(integer)", mode=mode) as result:
        assert [value for _, value in result] == [7, -7, 1 - 2**31]
