"""What is learned from texts: the structure of a column, and what it leaves out."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel.databases import structure
from fhirpath_otel.databases.sources import PlainHeader, Resource
from fhirpath_otel.databases.structure import PATIENCE, Decimals, Dropped, Seen, merge, sql_type
from fhirpath_otel.databases.survey import Survey
from fhirpath_otel.evaluator.dates import COMMON_DATE, is_date
from fhirpath_otel.evaluator.model import load_model


def seen(resource_type, *members):
    found = Seen(load_model(), resource_type)
    for one in members:
        found.learn(json.dumps({"resourceType": resource_type, "id": "x", **one}).encode())
    return found


def learned(resource_type, *members):
    structure = seen(resource_type, *members).structure()
    assert structure.pop("id") == "VARCHAR"
    return structure


class TestStructure:
    @pytest.mark.parametrize(
        ("resource_type", "member", "expected"),
        [
            ("Patient", {"active": True}, {"active": "BOOLEAN"}),
            ("Patient", {"birthDate": "1974"}, {"birthDate": "VARCHAR"}),
            ("Patient", {"multipleBirthInteger": 2}, {"multipleBirthInteger": "INTEGER"}),
            ("Observation", {"valueQuantity": {"value": 1.5}}, {"valueQuantity": {"value": "VARCHAR"}}),
            (
                "Patient",
                {"name": [{"given": ["A"]}, {"family": "B"}]},
                {"name": [{"given": ["VARCHAR"], "family": "VARCHAR"}]},
            ),
            ("Patient", {"_birthDate": {"id": "b"}}, {"_birthDate": {"id": "VARCHAR"}}),
            (
                "Patient",
                {"name": [{"given": [None], "_given": [None, {"id": "g"}]}]},
                {"name": [{"given": ["VARCHAR"], "_given": [{"id": "VARCHAR"}]}]},
            ),
            ("Patient", {"contained": [{"resourceType": "Device"}]}, {"contained": ["JSON"]}),
            ("Bundle", {"entry": [{"resource": {"id": "x"}}]}, {"entry": [{"resource": "JSON"}]}),
            ("Patient", {"text": {"div": "<div/>"}}, {"text": {"div": "VARCHAR"}}),
            ("Patient", {"contact": [{"name": {"text": "x"}}]}, {"contact": [{"name": {"text": "VARCHAR"}}]}),
            (
                "Questionnaire",
                {"item": [{"item": [{"linkId": "1.1"}]}]},
                {"item": [{"item": [{"linkId": "VARCHAR"}]}]},
            ),
            (
                "Patient",
                {"extension": [{"url": "u", "extension": [{"valueDecimal": 1}]}]},
                {"extension": [{"url": "VARCHAR", "extension": [{"valueDecimal": "VARCHAR"}]}]},
            ),
        ],
    )
    def test_an_element_becomes_what_holds_it(self, resource_type, member, expected):
        assert learned(resource_type, member) == expected
        assert seen(resource_type, member).dropped() == []

    @pytest.mark.parametrize(
        "member",
        [
            {"birthDate": None},
            {"name": None},
            {"name": []},
            {"name": [{}]},
            {"maritalStatus": {}},
        ],
    )
    def test_what_is_empty_needs_no_column(self, member):
        assert learned("Patient", member) == {}
        assert seen("Patient", member).dropped() == []

    @pytest.mark.parametrize("texts_before", [0, 100])
    def test_null_among_objects_is_told_for_sql_would_count_it(self, texts_before):
        before = [{"name": [{"family": "F"}]}] * texts_before
        found = seen("Patient", *before, {"name": [None, {"family": "F"}]}).dropped()
        assert [one.path for one in found] == ["Patient.name"]

    def test_null_among_primitives_is_a_gap_for_their_companions(self):
        member = {"name": [{"given": [None, "A"], "_given": [{"id": "1"}, None]}]}
        assert seen("Patient", member).dropped() == []

    def test_members_keep_the_order_in_which_they_were_seen(self):
        found = learned("Patient", {"gender": "male", "active": True}, {"active": True, "birthDate": "1974"})
        assert list(found) == ["gender", "active", "birthDate"]

    @pytest.mark.parametrize(
        ("member", "dropped", "kept"),
        [
            ({"foo": {"bar": 1}}, [("Patient.foo", "unknown to FHIR R4")], {}),
            (
                {"name": [{"foo": 1, "text": "x"}]},
                [("Patient.name.foo", "unknown to FHIR R4")],
                {"name": [{"text": "VARCHAR"}]},
            ),
            ({"_name": [{"id": "x"}]}, [("Patient._name", "unknown to FHIR R4")], {}),
            ({"deceased": True}, [("Patient.deceased", "unknown to FHIR R4")], {}),
            ({"active": "true"}, [("Patient.active", "a string where a boolean is needed")], {}),
            ({"gender": 1}, [("Patient.gender", "a number where a string is needed")], {}),
            ({"name": {"text": "x"}}, [("Patient.name", "an object where a list is needed")], {}),
            ({"name": ["x"]}, [("Patient.name", "a list with a string where an object is needed")], {}),
            ({"birthDate": ["1974"]}, [("Patient.birthDate", "a list where a date is needed")], {}),
            (
                {"contained": ["x"]},
                [("Patient.contained", "a list with a string where an object is needed")],
                {"contained": ["JSON"]},
            ),
            (
                {"multipleBirthInteger": 1.0},
                [
                    (
                        "Patient.multipleBirthInteger",
                        "a number where an integer of 32 bits is needed",
                    )
                ],
                {},
            ),
            (
                {"multipleBirthInteger": 2**31},
                [
                    (
                        "Patient.multipleBirthInteger",
                        "a number where an integer of 32 bits is needed",
                    )
                ],
                {},
            ),
            (
                {"extension": [{"valueDecimal": "1.0"}]},
                [("Patient.extension.valueDecimal", "a string where a number is needed")],
                {},
            ),
        ],
    )
    def test_what_the_model_does_not_have_is_dropped_and_told(self, member, dropped, kept):
        assert learned("Patient", member) == kept
        assert seen("Patient", member).dropped() == [Dropped(*one) for one in dropped]

    def test_an_element_with_right_and_wrong_values_is_kept_and_told(self):
        members = {"active": True}, {"active": "yes"}
        assert learned("Patient", *members) == {"active": "BOOLEAN"}
        assert [one.path for one in seen("Patient", *members).dropped()] == ["Patient.active"]

    def test_nesting_ends_at_a_depth_that_no_column_needs(self):
        inner = {"url": "end"}
        for _ in range(60):
            inner = {"extension": [inner]}
        found = seen("Patient", inner)
        assert sql_type(found.structure()).count("STRUCT") <= structure.MAX_DEPTH + 1
        assert [one.reason for one in found.dropped()] == ["nested deeper than 32 elements"]

    def test_keys_without_end_are_not_all_remembered(self, monkeypatch):
        monkeypatch.setattr(structure, "MAX_UNKNOWN_KEYS", 3)
        found = seen("Patient", *({f"key{number}": 1, "gender": "male"} for number in range(100)))
        assert [one.path for one in found.dropped()] == ["Patient.key0", "Patient.key1", "Patient.key2"]
        assert found.structure() == {"id": "VARCHAR", "gender": "VARCHAR"}

    def test_the_places_of_decimals_are_known(self):
        assert seen("Patient", {"multipleBirthInteger": 1}).decimals() == Decimals((), in_lists=False)
        member = {"valueQuantity": {"value": 1}, "extension": [{"valueDecimal": 1.0}], "valueInteger": 3}
        assert seen("Observation", member).decimals() == Decimals(("value", "valueDecimal"), in_lists=False)
        roc = {"quality": [{"roc": {"precision": [1.0, 0.50]}}]}
        assert seen("MolecularSequence", roc).decimals() == Decimals(("precision",), in_lists=True)


class TestTypes:
    def test_a_structure_is_printed_as_a_duckdb_type(self):
        structure = {"name": [{"given": ["VARCHAR"]}], "active": "BOOLEAN", "contained": ["JSON"]}
        expected = 'STRUCT("name" STRUCT("given" VARCHAR[])[], "active" BOOLEAN, "contained" JSON[])'
        assert sql_type(structure) == expected

    @pytest.mark.parametrize(
        ("first", "second", "both"),
        [
            ("VARCHAR", "VARCHAR", "VARCHAR"),
            ({"a": "VARCHAR"}, {"b": "JSON"}, {"a": "VARCHAR", "b": "JSON"}),
            ([{"a": "VARCHAR"}], [{"b": ["JSON"]}], [{"a": "VARCHAR", "b": ["JSON"]}]),
            ({"a": {"b": "VARCHAR"}}, {"a": {"c": "VARCHAR"}}, {"a": {"b": "VARCHAR", "c": "VARCHAR"}}),
        ],
    )
    def test_merging_keeps_what_either_has(self, first, second, both):
        assert merge(first, second) == both
        assert list(merge(first, second)) == list(both)

    @pytest.mark.parametrize(("first", "second"), [("VARCHAR", "JSON"), (["JSON"], "JSON"), ({}, "VARCHAR")])
    def test_structures_that_contradict_each_other_are_not_merged(self, first, second):
        with pytest.raises(ValueError, match="cannot be one column"):
            merge(first, second)


def survey_of(texts):
    """A survey of Patients, and which of the texts it had to look into."""
    found = Survey(load_model())
    looked_into = []
    for text in texts:
        header = found.read_header(text)
        looked_into.append(isinstance(header, PlainHeader))
        found.learn(Resource(header.resourceType, header.id, text, 1, header))
    return found, looked_into


class TestSurvey:
    def test_what_is_known_is_not_looked_into_again(self):
        known = b'{"resourceType":"Patient","id":"a","name":[{"family":"x"}]}'
        new = b'{"resourceType":"Patient","id":"a","name":[{"given":["x"]}]}'
        found, looked_into = survey_of([known] * (PATIENCE + 10) + [new] + [known] * (PATIENCE + 10))
        assert looked_into.count(True) == 2 * (PATIENCE + 1)
        assert found.seen["Patient"].structure() == {
            "id": "VARCHAR",
            "name": [{"family": "VARCHAR", "given": ["VARCHAR"]}],
        }

    def test_types_are_told_apart(self):
        texts = [
            b'{"resourceType":"Patient","id":"a","active":true}',
            b'{"id":"a","status":"x","resourceType":"Device"}',
        ]
        found, looked_into = survey_of(texts * 100)
        assert {type_: list(seen.structure()) for type_, seen in found.seen.items()} == {
            "Patient": ["id", "active"],
            "Device": ["id", "status"],
        }
        assert not any(looked_into[-100:])

    @pytest.mark.parametrize(
        "broken",
        [
            b'{"resourceType":"Patient","id":"a","name":[{"family":"x"}],}',
            b'{"resourceType":"Patient","id":"a","name":[{"family":"x"}]',
            b'{"resourceType":"Patient","id":"a","name":[{"family":"\\ud800"}]}',
            b'{"resourceType":"Patient","id":"a","contained":[{"x":NaN}]}',
            b'{"resourceType":"Patient","id":"a","foo":[01]}',
        ],
    )
    def test_what_is_no_json_is_refused_also_where_everything_is_known(self, broken):
        known = b'{"resourceType":"Patient","id":"a","name":[{"family":"x"}],"contained":[{"x":1}],"foo":[1]}'
        found, looked_into = survey_of([known] * 100)
        assert not looked_into[-1]
        with pytest.raises(msgspec.DecodeError):
            found.read_header(broken)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
)
names = st.sampled_from(
    [
        "name",
        "given",
        "family",
        "active",
        "birthDate",
        "extension",
        "valueDecimal",
        "contact",
        "_given",
        "foo",
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(names, values, max_size=5), min_size=1, max_size=12))
def test_the_fast_way_finds_the_same_as_looking_into_every_text(resources):
    before = structure.PATIENCE
    structure.PATIENCE = 1
    try:
        texts = [
            json.dumps({"resourceType": "Patient", "id": "x", **one}).replace("Infinity", "1e999").encode()
            for one in resources
        ]
        survey, _ = survey_of([text for text in texts for _ in range(3)])
    finally:
        structure.PATIENCE = before
    slow = Seen(load_model(), "Patient")
    for text in texts:
        slow.learn(text)
    fast = survey.seen["Patient"]
    assert fast.structure() == slow.structure()
    assert fast.dropped() == slow.dropped()


class TestDates:
    @pytest.mark.parametrize(
        "text", ["1974", "1974-12", "1974-12-25", "2024-02-29", "2014-02-28", "2014-04-30"]
    )
    def test_a_date_is_held(self, text):
        assert seen("Patient", {"birthDate": text}).dropped() == []

    @pytest.mark.parametrize(
        "text",
        [
            "0000-00-00",
            "31/12/2005",
            "2014-13-01",
            "2014-02-29",
            "2014-04-31",
            "19741225",
            "1974-12-25\n",
            "",
        ],
    )
    def test_what_is_no_date_is_told(self, text):
        told = [Dropped("Patient.birthDate", "a string that is no date where a date is needed")]
        assert seen("Patient", {"birthDate": text}).dropped() == told

    def test_only_a_settled_structure_with_such_a_text_takes_another(self):
        found = seen("Patient", {"birthDate": "1974-12-25"})
        text = b'{"resourceType":"Patient","id":"x","birthDate":"31/12/2005"}'
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=found.compiled())
        found.learn(text)
        assert msgspec.json.decode(text, type=found.compiled()).id == "x"
        assert found.structure()["birthDate"] == "VARCHAR"

    def test_the_pattern_of_common_dates_agrees_with_the_calendar(self):
        for month in range(14):
            for day in range(33):
                text = f"2024-{month:02}-{day:02}"
                assert (re.search(COMMON_DATE, text) is not None) == (is_date(text) and text != "2024-02-29")
