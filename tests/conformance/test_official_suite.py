"""The official FHIRPath suite for R4, through the whole line: load, parse, type check, plan, SQL or memory.

What fails is listed in `failing.txt` with its reason, and the list is exact: a listed case that passes fails the test
like an unlisted one that does not.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import fhirpathpy
import pytest
from fhirpathpy.engine.nodes import FP_Quantity, FP_Type
from fhirpathpy.models import models

import fhirpath_otel as fo
from fhirpath_otel.errors import FhirpathOtelError
from fhirpath_otel.evaluator.model import load_model
from tests.conformance import suite
from tests.conformance.suite import Case

LISTED = Path(__file__).with_name("failing.txt")


@dataclass(frozen=True, slots=True)
class Judged:
    """How a case came out: `passed`, the `mode` that evaluated it (or `error`), and what it gave."""

    case: Case
    passed: bool
    mode: str
    given: Any


@pytest.fixture(scope="module")
def cases(shared_data):
    return list(suite.cases(shared_data))


@pytest.fixture(scope="module")
def inputs(shared_data, cases):
    model = load_model()
    return {name: suite.input_text(shared_data, name, model) for name in {case.input_file for case in cases}}


@pytest.fixture(scope="module")
def databases(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    opened = {}
    for name, text in inputs.items():
        path = folder / f"{name}.ndjson"
        path.write_text(text + "\n", encoding="utf-8")
        opened[name] = fo.connect(":memory:")
        opened[name].load(path)
    yield opened
    for database in opened.values():
        database.close()


@pytest.fixture(scope="module")
def judged(cases, inputs, databases):
    types = {name: json.loads(text)["resourceType"] for name, text in inputs.items()}
    return [_judge(case, databases[case.input_file], types[case.input_file]) for case in cases]


def _judge(case: Case, database: fo.Database, resource_type: str, mode: str = "auto") -> Judged:
    try:
        with database.evaluate(case.expression, resource_type=resource_type, mode=mode) as result:
            items = [value for _, value in result]
            return Judged(case, case.answered_by(items), result.mode, items)
    except FhirpathOtelError as error:
        return Judged(case, case.invalid is not None, "error", error)


def _listed() -> dict[str, str]:
    lines = LISTED.read_text(encoding="utf-8").splitlines()
    entries = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return dict(entries)


def test_every_case_comes_out_as_listed(judged):
    failing = {one.case.key: str(one.given) for one in judged if not one.passed}
    listed = _listed()
    unlisted = {key: given for key, given in failing.items() if key not in listed}
    assert not unlisted, f"{len(unlisted)} cases fail that are not listed"
    assert set(listed) == set(failing), "these are listed, but pass, or are no cases"


def test_what_fhirpathpy_alone_passes_passes_too(cases, inputs, judged):
    alone = {case.key for case in cases if _passes_alone(case, inputs[case.input_file])}
    ours = {one.case.key for one in judged if one.passed}
    assert len(alone) > 750, "fhirpathpy is expected to pass most of the suite"
    assert alone - ours == set()


def _passes_alone(case: Case, text: str) -> bool:
    resource = json.loads(text, parse_float=Decimal)
    try:
        options = {"traceFn": lambda *_: None}
        items = fhirpathpy.evaluate(resource, case.expression, {}, models["r4"], options)
    except Exception:  # noqa: BLE001  whatever it raises is its answer
        return case.invalid is not None
    return case.answered_by([_as_json(item) for item in items])


def _as_json(item: Any) -> Any:
    if isinstance(item, FP_Quantity):
        return {"value": item.value, "code": item.unit.strip("'")}
    return str(item).removeprefix("T") if isinstance(item, FP_Type) else item


def test_sql_and_memory_give_the_same(judged, inputs, databases):
    different = {}
    for one in judged:
        if one.mode == "sql":
            name = one.case.input_file
            resource_type = json.loads(inputs[name])["resourceType"]
            in_memory = _judge(one.case, databases[name], resource_type, mode="memory").given
            if in_memory != one.given:
                different[one.case.key] = one.case.expression, one.given, str(in_memory)
    assert different == {}


def test_the_counts_of_each_group_are_printed(judged, capsys):
    groups = dict.fromkeys(one.case.group for one in judged)
    total, passed, modes = Counter(), Counter(), Counter()
    for one in judged:
        total[one.case.group] += 1
        passed[one.case.group] += one.passed
        modes[one.case.group, one.mode] += 1
    with capsys.disabled():
        print(f"\n{'official FHIRPath suite, R4':<34}{'passed':>12}{'SQL':>6}{'memory':>8}{'error':>7}")  # noqa: T201
        for group in groups:
            ran = [modes[group, mode] for mode in ("sql", "memory", "error")]
            print(_line(group, passed[group], total[group], ran))  # noqa: T201
        overall = Counter(one.mode for one in judged)
        ran = [overall[mode] for mode in ("sql", "memory", "error")]
        print(_line("all", passed.total(), total.total(), ran))  # noqa: T201
    assert total.total() == 935


def _line(group: str, passed: int, total: int, ran: list[int]) -> str:
    return f"{group:<34}{passed:>5} of {total:>3}{ran[0]:>6}{ran[1]:>8}{ran[2]:>7}"
