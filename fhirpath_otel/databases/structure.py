"""The structure that data has: which elements of a type occur, as a typed column can hold them.

A column holds the elements that were seen, not all that FHIR defines: recursion ends where the data ends, and a
table stays narrow. What the model does not know, and values of the wrong shape, stay out of the column; they are
told, and remain in the resource's text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Annotated, Any

import msgspec

from fhirpath_otel.evaluator.dates import COMMON_DATE, is_date
from fhirpath_otel.evaluator.model import SYSTEM_TYPES, Model

Structure = dict[str, "Structure"] | list["Structure"] | str
"""An object's members, a list of one kind of item, or a leaf: VARCHAR, BOOLEAN, INTEGER or JSON."""

MAX_DEPTH = 32
MAX_UNKNOWN_KEYS = 1_000
PATIENCE = 32
"""After something new, this many texts in a row have to bring nothing new before the structure is compiled again."""


class NoDate:
    """Stands for the strings that are no date where one is needed, as a type stands for its values."""


_SHAPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    NoDate: "a string that is no date",
    bool: "a boolean",
    float: "a number",
    type(None): "null",
}
_JSON_TYPES: dict[type, Any] = {
    dict: dict[str, msgspec.Raw],
    list: list[msgspec.Raw],
    str: str,
    NoDate: str,
    bool: bool,
    int: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    float: int | float,
    type(None): type(None),
}


def sql_type(structure: Structure) -> str:
    """The DuckDB type that holds such a structure: `STRUCT("name" STRUCT("family" VARCHAR)[])`."""
    if isinstance(structure, dict):
        members = ", ".join(f'"{key}" {sql_type(below)}' for key, below in structure.items())
        return f"STRUCT({members})"
    if isinstance(structure, list):
        return f"{sql_type(structure[0])}[]"
    return structure


def merge(first: Structure, second: Structure) -> Structure:
    """What holds both: the members of the first, in their order, then those that only the second has.

    Raises ValueError where they contradict each other, which two structures of one model never do.
    """
    if isinstance(first, dict) and isinstance(second, dict):
        both = {key: merge(below, second[key]) if key in second else below for key, below in first.items()}
        return both | {key: below for key, below in second.items() if key not in first}
    if isinstance(first, list) and isinstance(second, list):
        return [merge(first[0], second[0])]
    if first != second:
        raise ValueError(f"{first} and {second} cannot be one column")
    return first


@dataclass(frozen=True, slots=True)
class Dropped:
    """A path that occurs in the data (`Patient.foo`, by JSON keys) but not, or not always, in the column."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decimals:
    """The keys that decimals have, on any level, and whether some stand in lists, without a key before them."""

    keys: tuple[str, ...]
    in_lists: bool


@dataclass(slots=True)
class _Node:
    """An element as the model has it, and what was seen of it. `leaf` is empty for an object."""

    type_name: str
    leaf: str
    many: bool
    depth: int
    fits: bool = False
    wrong: set[type] = field(default_factory=set)
    wrong_items: set[type] = field(default_factory=set)
    members: dict[str, _Node] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    compiled: Any = None


class Seen:
    """The structure of all texts of one resource type that `learn` was given."""

    def __init__(self, model: Model, resource_type: str) -> None:
        self.resource_type = resource_type
        self._model = model
        self._root = _Node(resource_type, "", many=False, depth=0)
        self._unchanged = 0
        self._too_deep = False
        self._learn_member(self._root, "id", "")

    def learn(self, text: bytes) -> None:
        """Takes in a resource, which has to be valid JSON."""
        try:
            new = self._learn_value(self._root, _read(text.decode()))
        except RecursionError:
            new, self._too_deep = not self._too_deep, True
        self._unchanged = 0 if new else self._unchanged + 1

    def is_settled(self) -> bool:
        """Whether the last texts brought nothing new."""
        return self._unchanged >= PATIENCE

    def compiled(self) -> Any:
        """A msgspec type that takes texts of this structure and refuses any other. It has `id` and `resourceType`."""
        type_ = self.resource_type
        return _struct(self._root, tag_field="resourceType", tag=type_, namespace={"resourceType": type_})

    def structure(self) -> dict[str, Structure]:
        """The structure of a column that holds what was seen."""
        return _members(self._root)

    def dropped(self) -> list[Dropped]:
        """What such a column does not hold."""
        found = list(_dropped(self._root, self.resource_type))
        if self._too_deep:
            found.append(Dropped(self.resource_type, "nested too deeply to look into"))
        return found

    def decimals(self) -> Decimals:
        """Where numbers stand that have to keep their digits."""
        found = list(_decimals(self._root))
        return Decimals(tuple(sorted({key for key, _ in found})), any(many for _, many in found))

    # Each of these says whether there was something new.

    def _learn_value(self, node: _Node, value: Any) -> bool:
        if value is None:
            return False
        if not node.many:
            return self._learn_item(node, value, node.wrong)
        if not isinstance(value, list):
            return _note(node, node.wrong, type(value))
        new = not node.fits
        node.fits = True
        for item in value:
            if item is not None or not _may_have_gaps(node):
                new |= self._learn_item(node, item, node.wrong_items)
        if new:
            node.compiled = None
        return new

    def _learn_item(self, node: _Node, value: Any, wrong: set[type]) -> bool:
        kind = type(value)
        if kind not in _accepted(node):
            return _note(node, wrong, kind)
        if node.type_name == "date" and not is_date(value):
            return _note(node, wrong, NoDate)
        new = not node.fits
        node.fits = True
        if not node.leaf:
            for key, below in value.items():
                new |= self._learn_member(node, key, below)
        if new:
            node.compiled = None
        return new

    def _learn_member(self, node: _Node, key: str, value: Any) -> bool:
        member = node.members.get(key)
        if member is not None:
            return self._learn_value(member, value)
        if key in node.unknown or (key == "resourceType" and node is self._root):
            return False
        member = self._member(node, key)
        if member is None:
            if len(node.unknown) < MAX_UNKNOWN_KEYS:
                node.unknown.add(key)
                return True
            return False
        node.members[key] = member
        self._learn_value(member, value)
        return True

    def _member(self, node: _Node, key: str) -> _Node | None:
        known = self._model.json_element(node.type_name, key.removeprefix("_"))
        if known is None or node.depth == MAX_DEPTH:
            return None
        element, type_name = known
        if key.startswith("_"):
            if self._model.kind(type_name) != "primitive-type":
                return None
            type_name = "Element"
        return _Node(type_name, self._leaf(type_name), element.many, node.depth + 1)

    def _leaf(self, type_name: str) -> str:
        system = SYSTEM_TYPES.get(type_name, type_name.removeprefix("System."))
        if system in ("Boolean", "Integer"):
            return system.upper()
        if type_name in SYSTEM_TYPES or type_name.startswith("System."):
            return "VARCHAR"
        return "JSON" if self._model.kind(type_name) == "resource" else ""


def _note(node: _Node, wrong: set[type], kind: type) -> bool:
    kind = float if kind is int else kind
    if kind in wrong:
        return False
    wrong.add(kind)
    node.compiled = None
    return True


def _accepted(node: _Node) -> tuple[type, ...]:
    """The Python types of JSON values that are right for an item of the element."""
    if node.leaf in ("", "JSON"):
        return (dict,)
    if node.leaf == "BOOLEAN":
        return (bool,)
    if node.leaf == "INTEGER":
        return (int,)
    return (int, float) if _is_decimal(node) else (str,)


def _is_decimal(node: _Node) -> bool:
    return SYSTEM_TYPES.get(node.type_name, node.type_name) in ("Decimal", "System.Decimal")


def _int32(digits: str) -> int | float:
    """An integer of FHIR has 32 bits; a larger one can only be a decimal."""
    return int(digits) if len(digits) < 12 and -(2**31) <= int(digits) < 2**31 else float(digits)


_read = json.JSONDecoder(parse_int=_int32).decode


def _members(node: _Node) -> dict[str, Structure]:
    found: dict[str, Structure] = {}
    for key, member in node.members.items():
        below: Structure = member.leaf or _members(member)
        if below and member.fits:
            found[key] = [below] if member.many else below
    return found


def _dropped(node: _Node, path: str) -> Iterator[Dropped]:
    reason = "unknown to FHIR R4" if node.depth < MAX_DEPTH else f"nested deeper than {MAX_DEPTH} elements"
    for key in sorted(node.unknown):
        yield Dropped(f"{path}.{key}", reason)
    for key, member in node.members.items():
        place = f"{path}.{key}"
        needed = "a list" if member.many else _needed(member)
        for kind in sorted(member.wrong, key=str):
            yield Dropped(place, f"{_SHAPES[kind]} where {needed} is needed")
        for kind in sorted(member.wrong_items, key=str):
            yield Dropped(place, f"a list with {_SHAPES[kind]} where {_needed(member)} is needed")
        yield from _dropped(member, place)


def _needed(node: _Node) -> str:
    if node.type_name == "date":
        return "a date"
    kind = _accepted(node)[-1]
    return "an integer of 32 bits" if kind is int else _SHAPES[kind]


def _may_have_gaps(node: _Node) -> bool:
    """Whether null may stand for an item: of primitives and their companions, one of which then has it."""
    return bool(node.leaf) or node.type_name == "Element"


def _decimals(node: _Node) -> Iterator[tuple[str, bool]]:
    for key, member in node.members.items():
        if _is_decimal(member):
            yield key, member.many
        yield from _decimals(member)


def _compiled(node: _Node) -> Any:
    """The msgspec type of what was seen at an element."""
    if node.compiled is None:
        if node.type_name == "date":
            right: Any = Annotated[str, msgspec.Meta(pattern=COMMON_DATE)]
        else:
            right = (
                reduce(or_, (_JSON_TYPES[kind] for kind in _accepted(node))) if node.leaf else _struct(node)
            )
        if node.many:
            null = type(None) if _may_have_gaps(node) else None
            right = list[_union(right, node.wrong_items, null)]  # type: ignore[misc]
        node.compiled = _union(right if node.fits else None, node.wrong, type(None))
    return node.compiled


def _union(right: Any, wrong: set[type], null: Any) -> Any:
    """A type for what was right, if anything was, for what was wrong, and for null where it may be."""
    kinds = [
        None if NoDate in wrong else right,
        *(_JSON_TYPES[kind] for kind in sorted(wrong, key=str)),
        null,
    ]
    return reduce(or_, (kind for kind in kinds if kind is not None))


def _struct(node: _Node, **options: Any) -> Any:
    keys = [*node.members, *node.unknown]
    types = [*map(_compiled, node.members.values()), *[msgspec.Raw] * len(node.unknown)]
    names = ["id" if key == "id" else f"member{number}" for number, key in enumerate(keys)]
    return msgspec.defstruct(
        node.type_name.replace(".", "_"),
        [(name, type_, None) for name, type_ in zip(names, types, strict=True)],
        rename=dict(zip(names, keys, strict=True)),
        forbid_unknown_fields=True,
        gc=False,
        **options,
    )
