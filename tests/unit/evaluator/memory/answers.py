"""What the in-memory engine answers over one small resource."""

from __future__ import annotations

from fhirpath_otel.evaluator.memory import compile_expression
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import check

PATIENT = """{
    "resourceType": "Patient", "id": "p", "active": true, "gender": "female",
    "birthDate": "1974-12-25", "_birthDate": {"id": "b", "extension": [{"url": "urn:time", "valueInteger": 5}]},
    "_language": {"extension": [{"url": "urn:absent", "valueCode": "unknown"}]},
    "multipleBirthInteger": 2,
    "deceasedDateTime": "2024-02-29T23:30:00-05:00",
    "name": [
        {"use": "official", "family": "Ada", "given": [null, "B"], "_given": [{"id": "g"}, null]},
        {"use": "usual", "given": ["C\\\\n"], "period": {"start": "2001", "end": "2001-05"}}
    ],
    "extension": [
        {"url": "urn:weight", "valueQuantity": {"value": 2.50, "system": "http://unitsofmeasure.org", "code": "kg"}},
        {"url": "urn:size", "valueDecimal": 2},
        {"url": "urn:size", "valueDecimal": 10.0}
    ],
    "contained": [{"resourceType": "Organization", "id": "o", "name": "Org"}]
}"""


def answer(expression: str, resource: str = PATIENT, resource_type: str = "Patient") -> list:
    typed = check(parse(expression), expression, resource_type, load_model())
    return list(compile_expression(typed).evaluate(resource))
