"""The synthetic population: the same everywhere, valid FHIR R4, and with everything in it that is hard to load."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from itertools import islice

import pytest

from fhirpath_otel import population
from fhirpath_otel.evaluator.model import load_model

PATIENTS = 60
CHECKSUMS = {
    "Patient": "4c56e4f9e8a0497aa574927ecfd19949d203283a61475bdc25f6af2ff21c0ff3",
    "Encounter": "cdabfbf33313e8cb0ef1832dc544b7b5e10e3d9fe6752c20bf7dab0630409f57",
    "Condition": "1258c4379e6581bd7a11a6d3b65f1f4e3ec24223cc5b034c30bc1188909b1b7a",
    "Observation": "acadd9251a72b19254eeb0f20b5577b069775102f531932c858876e7b7c6bc4a",
}


@pytest.fixture(scope="module")
def resources():
    return list(population.generate(PATIENTS))


def problems(model, type_name, value, path):
    """What in a JSON object the R4 model does not know, or has another cardinality for."""
    for key, child in value.items():
        if key == "resourceType":
            continue
        found = model.json_element(type_name, key.removeprefix("_"))
        if found is None:
            yield f"{path}.{key}: not in R4"
            continue
        element, child_type = found
        if isinstance(child, list) != element.many:
            yield f"{path}.{key}: a {type(child).__name__}, but many is {element.many}"
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, dict):
                inner = "Element" if key.startswith("_") else child_type
                yield from problems(model, inner, item, f"{path}.{key}")


def test_every_resource_is_valid_in_the_r4_model(resources):
    model = load_model()

    found = [
        problem
        for resource in resources
        for problem in problems(model, resource["resourceType"], resource, resource["resourceType"])
    ]

    assert found == []


def test_one_seed_gives_the_same_bytes_on_every_platform_and_python(tmp_path):
    paths = population.write(tmp_path, PATIENTS)

    checksums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}

    assert checksums == CHECKSUMS


def test_another_seed_gives_another_population(resources):
    assert next(population.generate(1, seed=1)) != resources[0]


def test_a_smaller_population_is_the_beginning_of_a_larger_one(resources):
    smaller = list(population.generate(7))

    assert smaller == resources[: len(smaller)]


def test_identifiers_are_unique(resources):
    identifiers = [resource["id"] for resource in resources]

    assert len(set(identifiers)) == len(identifiers)


def test_references_within_the_population_lead_to_what_is_there(resources):
    there = {f"{resource['resourceType']}/{resource['id']}" for resource in resources}
    named = {
        resource[key]["reference"]
        for resource in resources
        for key in ("subject", "encounter")
        if key in resource
    }

    assert named <= there


def test_decimals_keep_their_places_in_the_files(tmp_path, resources):
    path = population.write(tmp_path, PATIENTS)["Observation"]

    numbers = []
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_float=numbers.append)

    assert all(isinstance(number, str) for number in numbers)
    assert any(number.endswith("0") for number in numbers)


def test_nobody_is_seen_before_birth_or_after_death(resources):
    lives = {
        resource["id"]: (resource["birthDate"], resource.get("deceasedDateTime", "9999"))
        for resource in resources
        if resource["resourceType"] == "Patient"
    }

    for resource in resources:
        if resource["resourceType"] == "Encounter":
            born, died = lives[resource["subject"]["reference"].removeprefix("Patient/")]
            assert born <= resource["period"]["start"][:10] <= died


@pytest.mark.parametrize(
    "element",
    [
        "Patient._birthDate",
        "Patient.contact",
        "Patient.deceasedBoolean",
        "Patient.deceasedDateTime",
        "Patient.maritalStatus",
        "Patient.multipleBirthBoolean",
        "Patient.multipleBirthInteger",
        "Condition.abatementDateTime",
        "Observation.component",
        "Observation.dataAbsentReason",
        "Observation.interpretation",
        "Observation.valueBoolean",
        "Observation.valueCodeableConcept",
        "Observation.valueQuantity",
        "Observation.valueString",
    ],
)
def test_an_element_is_there_for_some_and_missing_for_others(element):
    type_name, key = element.split(".")
    of_this_type = (one for one in population.generate(2000) if one["resourceType"] == type_name)

    assert {key in resource for resource in islice(of_this_type, 600)} == {True, False}


def test_names_have_several_uses_and_several_given_parts(resources):
    names = [name for resource in resources for name in resource.get("name", ())]

    assert {name["use"] for name in names} == {"official", "usual", "maiden"}
    assert {len(name["given"]) for name in names} == {1, 2, 3}


def test_no_number_goes_through_binary_floating_point(resources):
    def numbers(value):
        if isinstance(value, dict):
            for child in value.values():
                yield from numbers(child)
        elif isinstance(value, list):
            for child in value:
                yield from numbers(child)
        elif isinstance(value, float | Decimal):
            yield type(value)

    assert set(numbers(resources)) == {Decimal}
