"""Resources as few write them and FHIR allows them: elements left out, and extensions beside any primitive.

Some primitives have extensions only; some items of lists are null, with their extensions in the list beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from random import Random
from typing import Any

from fhirpath_otel.evaluator.model import Model

LEFT_OUT = 0.06
EXTENDED = 0.06
_VALUES: tuple[dict[str, Any], ...] = (
    {"valueString": "s"},
    {"valueInteger": 3},
    {"valueDecimal": Decimal("1.50")},
    {"valueBoolean": True},
)


def odd(resources: Iterable[dict[str, Any]], model: Model, seed: int) -> Iterator[dict[str, Any]]:
    """The resources, each changed here and there."""
    changes = _Changes(model, Random(seed))  # noqa: S311  test data, not a secret
    for resource in resources:
        kept = {key: resource[key] for key in ("resourceType", "id")}
        yield {**changes.of_complex(resource["resourceType"], resource), **kept}


class _Changes:
    def __init__(self, model: Model, random: Random) -> None:
        self.model = model
        self.random = random

    def of_complex(self, type_name: str, value: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        for key, below in value.items():
            known = self.model.json_element(type_name, key)
            if known is None or self.random.random() < LEFT_OUT:
                continue
            kind = known[1]
            if isinstance(below, dict):
                changed[key] = self.of_complex(kind, below)
            elif isinstance(below, list) and isinstance(below[0], dict):
                changed[key] = [one for one in (self.of_complex(kind, item) for item in below) if one]
            elif key in {"id", "url", "div"} or self.random.random() >= EXTENDED:
                changed[key] = below
            elif isinstance(below, list):
                changed |= self.of_list(key, below)
            else:
                changed |= self.of_primitive(key, below)
        return {key: below for key, below in changed.items() if below not in ({}, [])}

    def of_primitive(self, key: str, value: Any) -> dict[str, Any]:
        alone = {f"_{key}": self.extensions()}
        return alone if self.random.random() < 0.4 else {key: value, **alone}

    def of_list(self, key: str, values: list[Any]) -> dict[str, Any]:
        kept = [value if self.random.random() < 0.7 else None for value in values]
        beside = [
            self.extensions() if value is None or self.random.random() < 0.3 else None for value in kept
        ]
        return {key: kept, f"_{key}": beside} if any(beside) else {key: kept}

    def extensions(self) -> dict[str, Any]:
        url = self.random.choice(("urn:x", "urn:y"))
        return {"extension": [{"url": url, **self.random.choice(_VALUES)}]}
