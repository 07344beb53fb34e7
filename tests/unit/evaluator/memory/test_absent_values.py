"""Items without a value: primitives that have extensions only, and quantities without a number."""

from __future__ import annotations

import pytest

from tests.unit.evaluator.memory.answers import answer

RESOURCE = """{
    "resourceType": "Patient", "id": "p",
    "_active": {"extension": [{"url": "urn:x", "valueCode": "unknown"}]},
    "_gender": {"extension": [{"url": "urn:x", "valueCode": "unknown"}]},
    "_birthDate": {"id": "b"},
    "_multipleBirthInteger": {"id": "m"},
    "name": [{"family": "F", "given": [null, "a", "b"], "_given": [{"id": "g"}, null, null]}],
    "extension": [{"url": "urn:q", "valueQuantity": {"unit": "kg"}}]
}"""


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("gender & '!'", ["!"]),
        ("'!' & gender", ["!"]),
        ("gender + '!'", []),
        ("gender.upper()", []),
        ("gender.matches('m')", []),
        ("gender.length()", []),
        ("gender.toString()", []),
        ("gender.toChars()", []),
        ("gender.convertsToInteger()", []),
        ("gender.not()", []),
        ("'male'.startsWith(gender)", []),
        ("'male'.matches(gender)", []),
        ("'male'.split(gender)", []),
        ("'male'.substring(multipleBirth.ofType(integer))", []),
        ("'male'.encode(gender)", []),
        ("('a' | 'b').join(gender)", []),
        ("-multipleBirth.ofType(integer)", []),
        ("multipleBirth.ofType(integer).abs()", []),
        ("2.power(multipleBirth.ofType(integer))", []),
        ("name.given[multipleBirth.ofType(integer)]", []),
        ("name.given.select($this & '!')", ["!", "a!", "b!"]),
        ("name.given.join(' ')", ["a b"]),
        ("name.select(given.join(' ') + ' ' + family)", ["a b F"]),
        ("name ~ name", [True]),
        ("active and true", []),
        ("active.not()", []),
        ("iif(active, 1, 2)", [2]),
        ("where(active).id", []),
        ("birthDate > @2000", []),
        ("birthDate + 1 day", []),
        ("birthDate.lowBoundary()", []),
        ("name.given.sort()", ["a", "b"]),
        ("extension.value.ofType(Quantity) > 1 'kg'", []),
        ("extension.value.ofType(Quantity) = 1 'kg'", []),
        ("extension.value.ofType(Quantity) + 1 'kg'", []),
        # They are items all the same.
        ("gender.exists()", [True]),
        ("name.given.count()", [3]),
        ("gender.extension.value", ["unknown"]),
    ],
)
def test_an_item_without_a_value_gives_nothing(expression, expected):
    assert answer(expression, RESOURCE) == expected
