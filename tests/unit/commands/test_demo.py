"""`demo`: the parts that depend on the machine; the whole is run in tests/integration/test_cli.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fhirpath_otel.commands.demo import EXPRESSIONS, NEXT, _cache_directory, _next_command
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import check


@pytest.mark.parametrize("expression", [*EXPRESSIONS, NEXT])
def test_the_expressions_are_valid(expression):
    assert check(parse(expression), expression, None, load_model()).result.types


@pytest.mark.parametrize(
    ("program", "path", "words"),
    [
        ("{folder}/bin/fhirpath-otel", "{folder}/bin", "fhirpath-otel"),
        ("{folder}/bin/fhirpath-otel", "/nowhere", "bin/fhirpath-otel"),
        ("{folder}/package/__main__.py", "/nowhere", f"{sys.executable} -m fhirpath_otel"),
    ],
)
def test_the_next_command_names_the_program_so_that_it_can_be_pasted(
    tmp_path, monkeypatch, program, path, words
):
    script = tmp_path / "bin" / "fhirpath-otel"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path.format(folder=tmp_path))
    monkeypatch.setattr(sys, "argv", [program.format(folder=tmp_path), "demo"])

    command = _next_command(Path("/data/my clinic.duckdb"))

    assert command == f"{words} evaluate '/data/my clinic.duckdb' \"{NEXT}\" --explain"


@pytest.mark.parametrize(
    ("setting", "folder"),
    [("{home}/elsewhere", "elsewhere"), ("", "user/.cache"), ("relative", "user/.cache")],
)
def test_files_go_to_the_cache_directory(tmp_path, monkeypatch, setting, folder):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CACHE_HOME", setting.format(home=tmp_path))

    path = _cache_directory()

    assert path == tmp_path / folder / "fhirpath-otel" / "demo"
    assert path.is_dir()
