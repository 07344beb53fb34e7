"""One step of a path: the children of a name, found by our model in FHIR JSON.

A primitive is one item, with its id and extensions beside it; fhirpathpy makes two of it. Choices are tried by type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from fhirpathpy.engine.nodes import FP_Quantity, ResourceNode

from fhirpath_otel.evaluator.model import Model, json_key


def children_named(name: str, model: Model) -> Callable[[Any], Iterator[Any]]:
    """A function from an item to its children of this name."""
    known: dict[str | None, list[tuple[str, str | None]]] = {}

    def children(item: Any) -> Iterator[Any]:
        node = as_node(item)
        owner, path = node.data, node.path
        if not isinstance(owner, Mapping):
            if name == "value" and owner is not None:
                yield owner.value if isinstance(owner, FP_Quantity) else owner
                return
            owner, path = beside(node), "Element"
        keys = known.get(path)
        if keys is None:
            keys = known[path] = list(_keys(model, path, name))
        for key, kind in keys:
            if key in owner or f"_{key}" in owner:
                yield from _nodes(owner.get(key), owner.get(f"_{key}"), kind)

    return children


def children_of(item: Any, model: Model) -> Iterator[ResourceNode]:
    """All children, each with its type."""
    node = as_node(item)
    owner, path = node.data, node.path
    if not isinstance(owner, Mapping):
        owner, path = beside(node), "Element"
    for key in dict.fromkeys(key.removeprefix("_") for key in owner):
        if key != "resourceType":
            known = model.json_element(path or "", key)
            kind = known[1] if known else "Extension" if key == "extension" else None
            yield from _nodes(owner.get(key), owner.get(f"_{key}"), kind)


def as_node(item: Any) -> ResourceNode:
    """The item as fhirpathpy's node; of a value that comes from no resource it has no path."""
    return item if isinstance(item, ResourceNode) else ResourceNode(item, None)


def beside(node: ResourceNode) -> Mapping[str, Any]:
    """The id and extensions of a primitive."""
    return node._data or {}  # noqa: SLF001  fhirpathpy's place for them


def _keys(model: Model, path: str | None, name: str) -> Iterator[tuple[str, str | None]]:
    """The JSON keys that a child can have, with the types of its values."""
    element = model.element(path or "", name)
    if element is None:
        yield name, "Extension" if name == "extension" else None
    else:
        for kind in element.types:
            yield json_key(element, kind), kind


def _nodes(value: Any, companion: Any, kind: str | None) -> Iterator[ResourceNode]:
    """The items of an element: each value with what stands beside it under `_element`."""
    pairs = [(value, companion)]
    if isinstance(value, list) or isinstance(companion, list):
        pairs = list(zip_longest(value or (), companion or ()))
    for one, extensions in pairs:
        if one is not None or extensions is not None:
            number = kind == "decimal" and one is not None
            yield ResourceNode(Decimal(one) if number else one, kind, extensions)
