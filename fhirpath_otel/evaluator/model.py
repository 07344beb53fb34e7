"""The element model of FHIR R4 (4.0.1): which elements a type has, of which types, and whether they repeat.

It is read out of `r4.json.gz`, which `tools/build_model.py` makes from HL7's StructureDefinitions. Loading
takes about 3 ms and happens on first use; the elements of a type are put together when first asked for.

Names of types are FHIR's (`HumanName`, `code`). A backbone element's is its path (`Patient.contact`), also
where a content reference points at it (`Questionnaire.item.item`). The value of a primitive is of a System
type (`System.String`).
"""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

FHIR_VERSION = "4.0.1"

SYSTEM_TYPES: dict[str, str] = {
    "base64Binary": "String",
    "boolean": "Boolean",
    "canonical": "String",
    "code": "String",
    "date": "Date",
    "dateTime": "DateTime",
    "decimal": "Decimal",
    "id": "String",
    "instant": "DateTime",
    "integer": "Integer",
    "markdown": "String",
    "oid": "String",
    "positiveInt": "Integer",
    "string": "String",
    "time": "Time",
    "unsignedInt": "Integer",
    "uri": "String",
    "url": "String",
    "uuid": "String",
    "xhtml": "String",
}
"""FHIR primitive type → the System type it converts to (https://hl7.org/fhir/R4/fhirpath.html#types)."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a type, by its FHIRPath name (`value`, never `valueQuantity`).

    Only a choice has more than one type. `targets` are the resource types that a Reference may point at,
    empty where it may be any.
    """

    name: str
    types: tuple[str, ...]
    many: bool
    choice: bool
    targets: tuple[str, ...] = ()


def json_key(element: Element, type_name: str) -> str:
    """The JSON key of an element with a value of that type: `value` and `Quantity` give `valueQuantity`."""
    return element.name + type_name[0].upper() + type_name[1:] if element.choice else element.name


class Model:
    """All types of FHIR R4. Every method gives None or False for a name that is not known, and never raises.

    Threads may share it: the caches below are filled with equal values, whoever comes first.
    """

    def __init__(self, types: dict[str, dict[str, Any]]) -> None:
        self._types = types
        self._elements: dict[str, dict[str, Element]] = {}
        self._json_elements: dict[str, dict[str, tuple[Element, str]]] = {}
        self._ancestors: dict[str, tuple[str, ...]] = {}
        self.resource_types: frozenset[str] = frozenset(
            name for name, entry in types.items() if entry["kind"] == "resource" and not entry.get("abstract")
        )
        """The types that a resource can have; without the abstract `Resource` and `DomainResource`."""

    def kind(self, type_name: str) -> str | None:
        """`primitive-type`, `complex-type`, `resource` or `backbone`."""
        entry = self._types.get(type_name)
        return entry["kind"] if entry else None

    def is_abstract(self, type_name: str) -> bool:
        """True for `Resource`, `DomainResource`, `Element` and `BackboneElement`."""
        return bool(self._types.get(type_name, {}).get("abstract"))

    def ancestors(self, type_name: str) -> tuple[str, ...]:
        """The type itself and the types it derives from, nearest first; empty for an unknown type."""
        found = self._ancestors.get(type_name)
        if found is None:
            chain = []
            name = type_name
            while entry := self._types.get(name):
                chain.append(name)
                name = entry["base"]
            found = tuple(chain)
            if found:
                self._ancestors[type_name] = found
        return found

    def is_a(self, type_name: str, ancestor: str) -> bool:
        """Whether values of the first type are of the second: `Age` is a `Quantity`, `code` a `string`."""
        return ancestor in self.ancestors(type_name)

    def elements(self, type_name: str) -> dict[str, Element]:
        """The elements of a type by name, inherited ones first, else in the order of their definition."""
        found = self._elements.get(type_name)
        if found is None:
            found = {}
            for name in reversed(self.ancestors(type_name)):
                for key, text in self._types[name]["elements"].items():
                    element = _read_element(key, text)
                    found[element.name] = element
            if found:
                self._elements[type_name] = found
        return found

    def element(self, type_name: str, name: str) -> Element | None:
        """The element of that FHIRPath name, inherited ones included."""
        return self.elements(type_name).get(name)

    def json_element(self, type_name: str, key: str) -> tuple[Element, str] | None:
        """The element and the type that a JSON key stands for: `valueQuantity` gives `value` and `Quantity`.

        The key comes without the underscore that the `id` and extensions of a primitive have in JSON.
        """
        found = self._json_elements.get(type_name)
        if found is None:
            found = {
                json_key(element, type_): (element, type_)
                for element in self.elements(type_name).values()
                for type_ in element.types
            }
            if found:
                self._json_elements[type_name] = found
        return found.get(key)

    @cached_property
    def resource_names(self) -> frozenset[str]:
        """The names of all elements that some resource type has."""
        return frozenset(
            key.removesuffix("[x]")
            for entry in self._types.values()
            if entry["kind"] == "resource"
            for key in entry["elements"]
        )

    @cached_property
    def element_names(self) -> frozenset[str]:
        """The names of all elements of all types."""
        return frozenset(
            key.removesuffix("[x]") for entry in self._types.values() for key in entry["elements"]
        )

    def names(self, type_name: str) -> set[str]:
        """The names of all elements of a type."""
        return set(self.elements(type_name))

    def type_names(self) -> list[str]:
        """The names of all types that an expression can name: no backbone elements."""
        return [name for name, entry in self._types.items() if entry["kind"] != "backbone"]


def _read_element(key: str, text: str) -> Element:
    """From `value[x]` and `Quantity string`, or `basedOn` and `Reference(CarePlan|ServiceRequest)*`."""
    types: list[str] = []
    targets: tuple[str, ...] = ()
    for part in text.removesuffix("*").split(" "):
        type_name, _, listed = part.removesuffix(")").partition("(")
        types.append(type_name)
        if listed:
            targets = tuple(listed.split("|"))
    return Element(key.removesuffix("[x]"), tuple(types), text.endswith("*"), key.endswith("[x]"), targets)


_lock = threading.Lock()


def load_model() -> Model:
    """The model of FHIR R4, read once per process."""
    with _lock:
        return _read_model()


@cache
def _read_model() -> Model:
    packed = Path(__file__).with_name("r4.json.gz").read_bytes()
    return Model(json.loads(gzip.decompress(packed))["types"])
