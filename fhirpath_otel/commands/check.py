"""`fhirpath-otel check`: what an expression would give, without any data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from fhirpath_otel.errors import ExpressionError

if TYPE_CHECKING:
    from fhirpath_otel.evaluator.typecheck import TypedExpression


@click.command(
    epilog="""\b
Examples:
  fhirpath-otel check "Patient.name.given"
  fhirpath-otel check "name.where(use = 'official').family" --resource-type Patient
  fhirpath-otel check "Patient.birthdate" --json"""
)
@click.argument("expression")
@click.option("--resource-type", metavar="TYPE", help="Resource type at which the expression starts.")
@click.option("--json", "as_json", is_flag=True, help="Print the finding as JSON.")
def check(expression: str, resource_type: str | None, as_json: bool) -> int:
    """Parse and type-check EXPRESSION against FHIR R4, without data.

    Prints the type and the cardinality of the result. An error is shown under the text, and the exit code is 2.
    """
    try:
        typed = _typed(expression, resource_type)
    except ExpressionError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"expression": expression, "valid": False, "error": _error(error)}))
        return error.exit_code
    if as_json:
        click.echo(json.dumps({"expression": expression, "valid": True, **_finding(typed)}))
    else:
        where = f" for each {typed.resource_type}" if typed.resource_type else ""
        click.echo(f"{typed.result}{where}")
    return 0


def _typed(expression: str, resource_type: str | None) -> TypedExpression:
    from fhirpath_otel.evaluator import typecheck
    from fhirpath_otel.evaluator.model import load_model
    from fhirpath_otel.evaluator.parser import cached_parse

    return typecheck.check(cached_parse(expression)[0], expression, resource_type, load_model())


def _finding(typed: TypedExpression) -> dict[str, Any]:
    types = typed.result.types
    return {
        "resourceType": typed.resource_type,
        "types": None if types is None else sorted(types),
        "cardinality": "0..*" if typed.result.many else "0..1",
    }


def _error(error: ExpressionError) -> dict[str, Any]:
    return {"kind": error.error_type, "message": str(error), "start": error.start, "end": error.end}
