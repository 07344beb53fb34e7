"""Filters and projections: fhirpathpy evaluates a criterion twice, and takes any value for true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fhirpathpy.engine.nodes import ResourceNode

from fhirpath_otel.evaluator.memory.paths import beside, children_of
from fhirpath_otel.evaluator.memory.values import distinct, plain, same
from fhirpath_otel.evaluator.model import Model

Items = list[Any]
Context = dict[str, Any]
Evaluate = Callable[[Any], Items]


def invocations(model: Model) -> dict[str, dict[str, Any]]:
    """Their rows of fhirpathpy's table."""
    return {
        "where": {"fn": _where, "arity": {1: ["Expr"]}},
        "exists": {"fn": _exists, "arity": {0: [], 1: ["Expr"]}},
        "all": {"fn": _all, "arity": {1: ["Expr"]}},
        "select": {"fn": _select, "arity": {1: ["Expr"]}},
        "iif": {"fn": _iif, "arity": {2: ["Expr"] * 2, 3: ["Expr"] * 3}},
        "extension": {"fn": _extension, "arity": {1: ["String"]}},
        "distinct": {"fn": lambda _context, items: distinct(items)},
        "isDistinct": {"fn": lambda _context, items: len(distinct(items)) == len(items)},
        "union": {
            "fn": lambda _context, items, others: distinct([*items, *others]),
            "arity": {1: ["AnyAtRoot"]},
        },
        "skip": {"fn": _part(lambda items, count: items[count:]), "arity": {1: ["Integer"]}},
        "take": {"fn": _part(lambda items, count: items[:count]), "arity": {1: ["Integer"]}},
        "children": {"fn": lambda _context, items: _children(items, model)},
        "descendants": {"fn": lambda _context, items: _descendants(items, model)},
        "intersect": {"fn": _intersect, "arity": {1: ["AnyAtRoot"]}},
        "exclude": {"fn": _exclude, "arity": {1: ["AnyAtRoot"]}},
        "subsetOf": {"fn": _subset_of, "arity": {1: ["AnyAtRoot"]}},
        "supersetOf": {
            "fn": lambda context, items, others: _subset_of(context, others, items),
            "arity": {1: ["AnyAtRoot"]},
        },
        "single": {"fn": lambda _context, items: items},
        "hasValue": {"fn": _has_value},
    }


def _truth(items: Items) -> bool:
    """Whether a criterion holds: `tree.py` gives it as true, false or nothing."""
    return items == [True]


def _indexed(context: Context, items: Items) -> Iterator[Any]:
    for index, item in enumerate(items):
        context["$index"] = index
        yield item


def _where(context: Context, items: Items, criterion: Evaluate) -> Items:
    return [item for item in _indexed(context, items) if _truth(criterion(item))]


def _exists(context: Context, items: Items, criterion: Evaluate | None = None) -> bool:
    return bool(items if criterion is None else _where(context, items, criterion))


def _all(context: Context, items: Items, criterion: Evaluate) -> bool:
    return len(_where(context, items, criterion)) == len(items)


def _select(context: Context, items: Items, projection: Evaluate) -> Items:
    return [found for item in _indexed(context, items) for found in projection(item)]


def _iif(
    _context: Context, items: Items, criterion: Evaluate, then: Evaluate, otherwise: Evaluate | None = None
) -> Items:
    if _truth(criterion(items)):
        return then(items)
    return otherwise(items) if otherwise else []


def _part(of: Callable[[Items, int], Items]) -> Callable[[Context, Items, Any], Items]:
    """Of a count that is empty or negative: https://hl7.org/fhirpath/N1/#takenum-integer-collection."""
    return lambda _context, items, count: [] if count == [] else of(items, max(0, count))


def _children(items: Items, model: Model) -> Items:
    return [child for item in items for child in children_of(item, model)]


def _descendants(items: Items, model: Model) -> Items:
    found: Items = []
    level = _children(items, model)
    while level:
        found.extend(level)
        level = _children(level, model)
    return found


def _has(collection: Items, item: Any) -> bool:
    return any(same(item, one) for one in collection)


def _intersect(_context: Context, items: Items, others: Items) -> Items:
    return distinct(item for item in items if _has(others, item))


def _exclude(_context: Context, items: Items, others: Items) -> Items:
    return [item for item in items if not _has(others, item)]


def _subset_of(_context: Context, items: Items, others: Items) -> bool:
    return all(_has(others, item) for item in items)


def _extension(_context: Context, items: Items, url: Any) -> Items:
    """All of that url: fhirpathpy gives the first."""
    return [
        ResourceNode(extension, "Extension")
        for item in items
        if isinstance(item, ResourceNode)
        for extension in _with_extensions(item).get("extension") or ()
        if extension.get("url") == url
    ]


def _with_extensions(node: ResourceNode) -> Mapping[str, Any]:
    """What carries the extensions: a complex value itself, or what stands beside a primitive."""
    return node.data if isinstance(node.data, Mapping) else beside(node)


def _has_value(_context: Context, items: Items) -> bool:
    """https://hl7.org/fhir/R4/fhirpath.html#functions: one primitive that has more than extensions."""
    return len(items) == 1 and plain(items[0]) is not None and not isinstance(plain(items[0]), Mapping)
