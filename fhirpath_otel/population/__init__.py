"""A synthetic population of FHIR R4 resources, for the demonstration, tests and benchmarks.

The same seed gives the same bytes on every platform and Python (`draw.py` says how).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from fhirpath_otel.population import resources
from fhirpath_otel.population.draw import Draw
from fhirpath_otel.population.resources import Resource

DEFAULT_SEED = 20_261


def generate(patients: int, seed: int = DEFAULT_SEED) -> Iterator[Resource]:
    """The resources of a population: each patient, followed by their encounters, conditions and observations.

    Decimals are `decimal.Decimal`, with the places they are to be written with. A smaller population is the beginning
    of a larger one of the same seed.
    """
    draw = Draw(seed)
    for _ in range(patients):
        patient, born, last = resources.patient(draw)
        yield patient
        subject = {"reference": f"Patient/{patient['id']}"}
        for _ in range(1 + draw.below(3)):
            encounter, begin = resources.encounter(draw, subject, born, last)
            yield encounter
            about = {"subject": subject, "encounter": {"reference": f"Encounter/{encounter['id']}"}}
            if draw.chance(0.6):
                yield resources.condition(draw, about, begin)
            for _ in range(2 + draw.below(5)):
                yield draw.one(resources.OBSERVATIONS)(draw, about, begin)


def write(directory: str | os.PathLike[str], patients: int, seed: int = DEFAULT_SEED) -> dict[str, Path]:
    """Write a population into a directory, as one NDJSON file a resource type, over files of these names.

    Gives the path of each type's file. Raises OSError where the directory cannot be written.
    """
    import msgspec

    encode = msgspec.json.Encoder(decimal_format="number").encode
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.ndjson" for name in ("Patient", "Encounter", "Condition", "Observation")}
    with ExitStack() as stack:
        files = {name: stack.enter_context(path.open("wb")) for name, path in paths.items()}
        for resource in generate(patients, seed):
            files[resource["resourceType"]].write(encode(resource) + b"\n")
    return paths
