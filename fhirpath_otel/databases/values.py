"""From stored values back to FHIR JSON values: decimals regain their digits, absent elements disappear."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

from fhirpath_otel.databases.structure import Structure
from fhirpath_otel.evaluator.model import SYSTEM_TYPES, Model

Convert = Callable[[Any], Any]

RESOURCE_TEXT = "RESOURCE TEXT"
"""The structure of a whole resource, which is read from its text."""


def converter(structure: Structure, type_name: str, model: Model) -> Convert | None:
    """A function from a stored value that is not NULL to its FHIR JSON value; None where they are the same."""
    if isinstance(structure, list):
        return _list_converter(converter(structure[0], type_name, model))
    if isinstance(structure, dict):
        return _object_converter(structure, type_name, model)
    if structure == RESOURCE_TEXT:
        return partial(json.loads, parse_float=Decimal)
    if structure == "DECIMAL":
        return _plain_number(type_name)
    return Decimal if SYSTEM_TYPES.get(type_name) == "Decimal" else None


def _plain_number(type_name: str) -> Convert:
    """A computed number: its scale is the statement's, so trailing zeros say nothing."""
    if SYSTEM_TYPES.get(type_name, type_name.removeprefix("System.")) == "Integer":
        return int
    return lambda value: Decimal(re.sub(r"\.?0+$", "", f"{value:f}") if "." in f"{value:f}" else value)


def _list_converter(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda items: [None if item is None else convert(item) for item in items]


def _object_converter(structure: dict[str, Structure], type_name: str, model: Model) -> Convert:
    converters: list[tuple[str, Convert | None]] = []
    for key, below in structure.items():
        if key.startswith("_"):
            kind = "Element"
        else:
            known = model.json_element(type_name, key)
            kind = known[1] if known else ""
        converters.append((key, converter(below, kind, model)))

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value[key] if convert_one is None else convert_one(value[key])
            for key, convert_one in converters
            if value[key] is not None
        }

    return convert
