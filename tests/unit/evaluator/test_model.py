"""The model of FHIR R4, against facts of the published specification (https://hl7.org/fhir/R4/)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fhirpath_otel.evaluator.model import SYSTEM_TYPES, Element, Model, json_key, load_model

ELEMENTS = {
    ("Patient", "name"): Element("name", ("HumanName",), True, False),
    ("Patient", "active"): Element("active", ("boolean",), False, False),
    ("Patient", "id"): Element("id", ("id",), False, False),
    ("Patient", "contained"): Element("contained", ("Resource",), True, False),
    ("Patient", "deceased"): Element("deceased", ("boolean", "dateTime"), False, True),
    ("Patient", "contact"): Element("contact", ("Patient.contact",), True, False),
    ("Patient.contact", "modifierExtension"): Element("modifierExtension", ("Extension",), True, False),
    ("Patient.contact", "id"): Element("id", ("string",), False, False),
    ("Questionnaire.item", "item"): Element("item", ("Questionnaire.item",), True, False),
    ("Bundle.entry", "resource"): Element("resource", ("Resource",), False, False),
    ("Bundle.entry", "link"): Element("link", ("Bundle.link",), True, False),
    ("Parameters.parameter", "part"): Element("part", ("Parameters.parameter",), True, False),
    ("Parameters.parameter", "resource"): Element("resource", ("Resource",), False, False),
    ("Timing.repeat", "bounds"): Element("bounds", ("Duration", "Range", "Period"), False, True),
    ("string", "extension"): Element("extension", ("Extension",), True, False),
    ("string", "id"): Element("id", ("string",), False, False),
    ("code", "value"): Element("value", ("System.String",), False, False),
    ("positiveInt", "value"): Element("value", ("System.Integer",), False, False),
    ("instant", "value"): Element("value", ("System.DateTime",), False, False),
    ("Narrative", "div"): Element("div", ("xhtml",), False, False),
    ("Age", "code"): Element("code", ("code",), False, False),
    ("Extension", "url"): Element("url", ("uri",), False, False),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model()


@pytest.mark.parametrize(("place", "expected"), ELEMENTS.items(), ids=str)
def test_an_element_has_its_types_and_cardinality(
    model: Model, place: tuple[str, str], expected: Element
) -> None:
    assert model.element(*place) == expected


@pytest.mark.parametrize(
    ("type_name", "name"),
    [("Patient", "valueQuantity"), ("Observation", "valueQuantity"), ("Patient", "nme"), ("Nobody", "name")],
)
def test_an_unknown_element_is_none(model: Model, type_name: str, name: str) -> None:
    assert model.element(type_name, name) is None


def test_a_reference_knows_the_resources_it_may_point_at(model: Model) -> None:
    subject = model.element("Observation", "subject")
    focus = model.element("Observation", "focus")
    assert subject is not None
    assert focus is not None
    assert subject.targets == ("Patient", "Group", "Device", "Location")
    assert focus.targets == ()


@pytest.mark.parametrize(
    ("type_name", "key", "name", "value_type"),
    [
        ("Observation", "valueQuantity", "value", "Quantity"),
        ("Observation", "valueDateTime", "value", "dateTime"),
        ("Patient", "deceasedBoolean", "deceased", "boolean"),
        ("Patient", "birthDate", "birthDate", "date"),
        ("Extension", "valueBase64Binary", "value", "base64Binary"),
        ("Questionnaire.item", "item", "item", "Questionnaire.item"),
    ],
)
def test_a_json_key_stands_for_one_element_and_type(
    model: Model, type_name: str, key: str, name: str, value_type: str
) -> None:
    found = model.json_element(type_name, key)
    assert found is not None
    element, found_type = found
    assert (element.name, found_type) == (name, value_type)
    assert json_key(element, found_type) == key


@pytest.mark.parametrize("key", ["value", "valueHumanName", "_valueString", "resourceType"])
def test_a_key_that_json_cannot_have_is_none(model: Model, key: str) -> None:
    assert model.json_element("Observation", key) is None


@pytest.mark.parametrize(
    ("type_name", "ancestor", "expected"),
    [
        ("Patient", "Patient", True),
        ("Patient", "DomainResource", True),
        ("Bundle", "DomainResource", False),
        ("Bundle", "Resource", True),
        ("Age", "Quantity", True),
        ("Quantity", "Age", False),
        ("code", "string", True),
        ("uuid", "uri", True),
        ("positiveInt", "integer", True),
        ("Patient.contact", "BackboneElement", True),
        ("Timing.repeat", "Element", True),
        ("Timing.repeat", "BackboneElement", False),
        ("Nobody", "Nobody", False),
    ],
)
def test_types_derive_from_their_ancestors(
    model: Model, type_name: str, ancestor: str, expected: bool
) -> None:
    assert model.is_a(type_name, ancestor) is expected


@pytest.mark.parametrize(
    ("type_name", "kind"),
    [
        ("Patient", "resource"),
        ("Resource", "resource"),
        ("HumanName", "complex-type"),
        ("Element", "complex-type"),
        ("code", "primitive-type"),
        ("Patient.contact", "backbone"),
        ("SimpleQuantity", None),
        ("Definition", None),
        ("System.String", None),
    ],
)
def test_a_type_has_its_kind(model: Model, type_name: str, kind: str | None) -> None:
    assert model.kind(type_name) == kind


def test_resource_types_are_the_146_that_a_resource_can_have(model: Model) -> None:
    assert len(model.resource_types) == 146
    assert {"Patient", "Bundle", "Parameters", "Binary"} <= model.resource_types
    assert not {"Resource", "DomainResource", "Element", "HumanName"} & model.resource_types
    assert model.is_abstract("DomainResource")
    assert not model.is_abstract("Patient")
    assert not model.is_abstract("Nobody")


def test_names_include_the_inherited_ones_and_choices_by_their_short_name(model: Model) -> None:
    assert {"id", "text", "contained", "value", "component"} <= model.names("Observation")
    assert model.names("Nobody") == set()


def test_every_type_of_an_element_is_in_the_model(model: Model) -> None:
    system = {f"System.{name}" for name in SYSTEM_TYPES.values()}
    unknown = [
        (type_name, element.name, value_type)
        for type_name in [*model.type_names(), "Questionnaire.item", "Bundle.entry", "Timing.repeat"]
        for element in model.elements(type_name).values()
        for value_type in element.types
        if model.kind(value_type) is None and value_type not in system
    ]
    assert unknown == []


def test_every_primitive_type_has_a_system_type(model: Model) -> None:
    primitives = {name for name in model.type_names() if model.kind(name) == "primitive-type"}
    assert primitives == SYSTEM_TYPES.keys()
    for name in primitives:
        value = model.element(name, "value")
        assert value is not None
        assert value.types == (f"System.{SYSTEM_TYPES[name]}",)


def test_threads_load_one_model_and_read_the_same_elements() -> None:
    def read(_: int) -> tuple[int, tuple[str, ...]]:
        shared = load_model()
        return id(shared), tuple(shared.elements("Encounter"))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(read, range(64)))) == 1
