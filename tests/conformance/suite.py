"""The official FHIRPath suite for R4: its cases, its inputs as FHIR JSON, and what counts as a right answer.

The inputs are mostly XML. They become JSON by the project's own model: it says what repeats, what is a choice, and
which type a primitive has; a decimal keeps its digits.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from fhirpath_otel.evaluator.model import SYSTEM_TYPES, Model, json_key

SUITE = "fhirpath-r4/tests-fhir-r4.xml"
INPUTS = "fhirpath-r4/input"
DEFAULT_INPUT = "patient-example.xml"  # of cases that need none

_XHTML = "{http://www.w3.org/1999/xhtml}"
_UCUM = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True)
class Output:
    """An expected item; `type` is a FHIR or System type name, or None where the suite does not say."""

    type: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """`invalid` names the stage at which an error is expected; any error counts. `key` is unique."""

    key: str
    group: str
    input_file: str
    expression: str
    invalid: str | None
    predicate: bool
    ordered: bool
    outputs: tuple[Output, ...]

    def answered_by(self, items: Sequence[Any]) -> bool:
        """Whether these FHIR JSON values are the result that the suite expects."""
        if self.invalid:
            return False
        if self.predicate:
            items = [items[0] if len(items) == 1 and isinstance(items[0], bool) else bool(items)]
        if len(items) != len(self.outputs):
            return False
        if self.ordered:
            return all(_same(item, output) for item, output in zip(items, self.outputs, strict=True))
        left = list(self.outputs)
        for item in items:
            match = next((output for output in left if _same(item, output)), None)
            if match is None:
                return False
            left.remove(match)
        return True


def cases(data: Path) -> Iterator[Case]:
    """All cases, in the order of the suite. A name that occurs twice in a group gets a number the second time."""
    seen: Counter[str] = Counter()
    for group in _root(data / SUITE).iterfind("group"):
        for test in group.iterfind("test"):
            expression = test.find("expression")
            assert expression is not None
            name = f"{group.get('name')}/{test.get('name')}"
            seen[name] += 1
            yield Case(
                key=name if seen[name] == 1 else f"{name}#{seen[name]}",
                group=group.get("name", ""),
                input_file=test.get("inputfile", DEFAULT_INPUT),
                expression=expression.text or "",
                invalid=expression.get("invalid"),
                predicate=test.get("predicate") == "true",
                ordered=test.get("ordered") != "false",
                outputs=tuple(Output(one.get("type"), one.text or "") for one in test.iterfind("output")),
            )


def _root(path: Path) -> ET.Element:
    return ET.parse(path).getroot()  # noqa: S314  the test data's own files


# --- inputs


def input_text(data: Path, name: str, model: Model) -> str:
    """An input as one line of FHIR JSON, with an id."""
    path = data / INPUTS / name
    if path.suffix == ".json":
        resource = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    else:
        resource = _resource(_root(path), model)
    resource.setdefault("id", "without-an-id")
    return msgspec.json.Encoder(decimal_format="number").encode(resource).decode()


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _resource(element: ET.Element, model: Model) -> dict[str, Any]:
    return {"resourceType": _local(element), **_complex(element, _local(element), model)}


def _complex(element: ET.Element, type_name: str, model: Model) -> dict[str, Any]:
    found: dict[str, Any] = {key: element.attrib[key] for key in ("id", "url") if key in element.attrib}
    for child in element:
        key = _local(child)
        known = model.json_element(type_name, key)
        assert known is not None, f"{key} is no element of {type_name}"
        declared, kind = known
        assert json_key(declared, kind) == key
        value, companion = _value(child, kind, model)
        if not declared.many:
            found |= {name: one for name, one in ((key, value), (f"_{key}", companion)) if one is not None}
            continue
        values, companions = found.setdefault(key, []), found.get(f"_{key}", [])
        if companion is not None or companions:
            found[f"_{key}"] = [*companions, *[None] * (len(values) - len(companions)), companion]
        values.append(value)
    return found


def _value(element: ET.Element, kind: str, model: Model) -> tuple[Any, dict[str, Any] | None]:
    """The JSON value, and the id and extensions of a primitive."""
    if kind == "Resource":
        return _resource(element[0], model), None
    if kind == "xhtml":
        return _narrative(element), None
    if model.kind(kind) != "primitive-type":
        return _complex(element, kind, model), None
    return _primitive(element.get("value"), kind), _companion(element, model)


def _primitive(text: str | None, kind: str) -> Any:
    if text is None:
        return None
    read = {"Boolean": "true".__eq__, "Integer": int, "Decimal": Decimal}.get(SYSTEM_TYPES[kind], str)
    return read(text)


def _companion(element: ET.Element, model: Model) -> dict[str, Any] | None:
    found: dict[str, Any] = {"id": element.attrib["id"]} if "id" in element.attrib else {}
    extensions = [_complex(child, "Extension", model) for child in element]
    if extensions:
        found["extension"] = extensions
    return found or None


def _narrative(element: ET.Element) -> str:
    """An xhtml `div` with its namespace as the default one, as FHIR JSON wants it."""
    plain = deepcopy(element)
    plain.tail = None
    for one in plain.iter():
        one.tag = one.tag.removeprefix(_XHTML)
    plain.set("xmlns", _XHTML.strip("{}"))
    return ET.tostring(plain, encoding="unicode")


# --- outputs


def _same(item: Any, output: Output) -> bool:
    kind, text = output.type or _guessed_type(output.text), output.text
    if kind == "boolean":
        return item is (text == "true")
    if kind == "integer":
        return type(item) is int and item == int(text)
    if kind == "decimal":
        return type(item) in {int, Decimal} and item == Decimal(text)
    if kind == "Quantity":
        return isinstance(item, dict) and _same_quantity(item, text)
    if kind in {"date", "dateTime", "time"}:
        text = text.removeprefix("@").removeprefix("T")
    return isinstance(item, str) and item == text


def _guessed_type(text: str) -> str:
    patterns = {
        "boolean": r"true|false",
        "decimal": r"-?\d+(\.\d+)?",
        "Quantity": r"-?\d+(\.\d+)? '.*'",
        "dateTime": r"@.*",
    }
    return next((kind for kind, pattern in patterns.items() if re.fullmatch(pattern, text)), "string")


def _same_quantity(item: dict[str, Any], text: str) -> bool:
    number, _, unit = text.partition(" ")
    return item.get("value") == Decimal(number) and item.get("code", item.get("unit")) == unit.strip("'")
