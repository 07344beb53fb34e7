"""Names of types in an expression, and what of a collection is of such a type.

https://hl7.org/fhirpath/N1/#is-type-specifier and #type-specifiers: a name without a namespace is FHIR's or
System's, whichever has it; `Quantity` is in both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

from fhirpath_otel.evaluator.model import Model
from fhirpath_otel.evaluator.result_types import SYSTEM, SYSTEM_NAMES, system_type

NAMESPACES = ("FHIR", "System")


def did_you_mean(name: str, known: Iterable[str], ending: str = "") -> str | None:
    """A question that suggests the nearest of the known names, or None if there is none near."""
    by_lower = {candidate.lower(): candidate for candidate in sorted(known)}
    near = difflib.get_close_matches(name.lower(), by_lower, 1, 0.7)
    return f"did you mean '{by_lower[near[0]]}{ending}'?" if near else None


def named_types(model: Model, namespace: str | None, name: str) -> tuple[str, ...] | None:
    """The types that a name can mean; None if no type has it, empty if only the other namespace does."""
    kind = model.kind(name)
    in_fhir = kind is not None and kind != "backbone"
    if not in_fhir and name not in SYSTEM_NAMES:
        return None
    found = []
    if in_fhir and namespace != "System":
        found.append(name)
    if name in SYSTEM_NAMES and namespace != "FHIR":
        found.append(SYSTEM + name)
    return tuple(found)


@lru_cache(maxsize=1_024)
def narrow(model: Model, types: frozenset[str] | None, named: tuple[str, ...]) -> frozenset[str] | None:
    """The types that items of `types` can have if they are of a named type; None if nothing is known.

    A FHIR primitive stays where the System type that it converts to is named, and the other way round: engines differ
    there, and the wider set is right for all of them. Cached: a choice of 50 types takes 30 µs.
    """
    if types is None:
        return None if any(_says_nothing(model, name) for name in named) else frozenset(named)
    if "System.Any" in named:
        return types
    found: set[str] = set()
    for type_name in types:
        if any(model.is_a(type_name, name) or type_name == name for name in named):
            found.add(type_name)
        else:
            found.update(name for name in named if model.is_a(name, type_name) or _converts(type_name, name))
    return frozenset(found)


def is_mistake(model: Model, operator: str, types: frozenset[str]) -> bool:
    """Whether a type test that matches none of `types` is a mistake rather than a question.

    Questions are those that the official suite asks: of System types (`1.is(Decimal)`), of one FHIR primitive
    (`Patient.gender.as(id)`), and which resource it is.
    """
    kinds = {model.kind(name) for name in types}
    if None in kinds or (operator == "is" and kinds == {"resource"}):
        return False
    return len(types) > 1 or kinds != {"primitive-type"}


def _says_nothing(model: Model, name: str) -> bool:
    return name == "System.Any" or (model.is_abstract(name) and model.kind(name) != "resource")


def _converts(type_name: str, name: str) -> bool:
    """Whether one of the two is a System type that the other, of FHIR, converts to."""
    return type_name.startswith(SYSTEM) != name.startswith(SYSTEM) and (
        system_type(type_name) == system_type(name)
    )
