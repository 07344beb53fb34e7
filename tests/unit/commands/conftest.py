"""A database of made-up answers, and the command line run in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

import fhirpath_otel
from fhirpath_otel import settings
from fhirpath_otel.__main__ import main
from fhirpath_otel.errors import EvaluationError
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.result import Explanation
from fhirpath_otel.reports import console
from fhirpath_otel.telemetry.evaluation import Outcome

ANSWERS = {
    "Patient.name.given": [("1", "Ada"), ("1", "Kaia"), ("2", "Bruno")],
    "Patient.active": [("1", True)],
    "Observation.value.value": [("o", Decimal("1.50"))],
    "Patient.photo": [],
    "Patient.broken": [
        ("1", "Ada"),
        EvaluationError("several items", "Patient.broken", 8, 14),
    ],
}


class FakeResult:
    def __init__(self, expression: str, mode: str) -> None:
        self.expression = expression
        self.mode = mode
        self.mode_reason = "trace() at 8" if mode == "memory" else None
        self.sampling: Outcome | None = None
        self.trace_id: str | None = None
        self.closed = False

    def __iter__(self):
        for row in ANSWERS[self.expression]:
            if isinstance(row, Exception):
                self.sampling, self.trace_id = Outcome(True, "kept", "error", 10), f"{10:032x}"
                raise row
            yield row
        if self.expression == "Patient.active":
            self.sampling = Outcome(False, "dropped", "not_selected")
        else:
            self.sampling, self.trace_id = Outcome(True, "kept", "first_sighting", 11), f"{11:032x}"

    def explain(self) -> Explanation:
        return Explanation(
            self.expression, "Patient", "string", self.mode, self.mode_reason, "SELECT 1", 2, False
        )

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


@dataclass
class FakeDatabase:
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    results: list[FakeResult] = field(default_factory=list)
    closed: bool = False

    def evaluate(self, expression: str, **options: Any) -> FakeResult:
        parse(expression)
        self.asked.append((expression, options))
        self.results.append(FakeResult(expression, "memory" if options["mode"] == "memory" else "sql"))
        return self.results[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


@dataclass(frozen=True)
class Ended:
    exit_code: int
    output: str
    errors: str


@pytest.fixture
def database(monkeypatch):
    fake = FakeDatabase()
    monkeypatch.setattr(fhirpath_otel, "connect", lambda url, **options: fake)
    monkeypatch.setattr(fhirpath_otel, "configure", lambda **options: None)
    return fake


@pytest.fixture
def run(capfdbinary, monkeypatch):
    """Runs the command line with these arguments, and gives its exit code, output and errors."""
    console.output.cache_clear()
    console.error_output.cache_clear()
    settings.current.cache_clear()
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments):
        exit_code = main([str(argument) for argument in arguments])
        output, errors = capfdbinary.readouterr()
        return Ended(exit_code, output.decode(), errors.decode())

    yield run
    settings.current.cache_clear()
