"""How a command ends: one line, and an exit code."""

from __future__ import annotations

import errno
import logging

import click
import pytest

import fhirpath_otel
from fhirpath_otel import errors
from fhirpath_otel.__main__ import _OneLine
from fhirpath_otel.commands import COMMANDS


def fail_with(monkeypatch, error):
    def connect(url, **options):
        raise error

    monkeypatch.setattr(fhirpath_otel, "connect", connect)


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (errors.UsageError("no such thing"), 2, "error: no such thing\n"),
        (errors.DatabaseError("locked"), 1, "error: locked\n"),
        (errors.LoadError("broken", "a.ndjson", 7), 1, "error: a.ndjson:7: broken\n"),
        (errors.DatabaseError("two\nlines\x1b[2J"), 1, "error: two�lines�[2J\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (click.Abort(), 130, "error: interrupted\n"),
        (BrokenPipeError(), 141, ""),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(run, database, monkeypatch, error, exit_code, message):
    fail_with(monkeypatch, error)

    ended = run("evaluate", "clinic.duckdb", "Patient.active")

    # After the ^C that a terminal shows, click begins a new line.
    assert (ended.exit_code, ended.errors.lstrip("\n")) == (exit_code, message)


def test_an_error_in_the_data_of_a_resource_names_it(run, database, monkeypatch, tmp_path):
    def evaluate(expression, **options):
        error = errors.EvaluationError("several items", expression, 8, 14)
        error.resource_id = "p2"
        raise error

    monkeypatch.setattr(database, "evaluate", evaluate)
    (tmp_path / "a.txt").write_text("Patient.broken\n", encoding="utf-8")

    ended = run("evaluate", "clinic.duckdb", "Patient.broken")
    assert "error: several items at 8 (resource p2)\n" in ended.errors

    ended = run("evaluate", "clinic.duckdb", "--file", tmp_path / "a.txt")
    assert "a.txt:1: several items at 8 (resource p2)\n" in ended.errors


def test_a_bug_is_one_line_too_unless_a_traceback_is_asked_for(run, database, monkeypatch):
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))

    ended = run("evaluate", "clinic.duckdb", "Patient.active")
    assert ended.exit_code == 1
    assert ended.errors.startswith("error: ZeroDivisionError: division by zero (this is a bug")
    assert len(ended.errors.splitlines()) == 1

    monkeypatch.setenv("FHIRPATH_OTEL_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run("evaluate", "clinic.duckdb", "Patient.active")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No such command 'nope'. Try: fhirpath-otel --help"),
        (["evaluate"], "Missing argument 'DATABASE'. Try: fhirpath-otel evaluate --help"),
        (["evaluate", "a", "b", "--nope"], "No such option '--nope'"),
        (["demo", "--patients", "0"], "Try: fhirpath-otel demo --help"),
        (["load", "a", "b", "--on-error", "ignore"], "'ignore' is not one of 'stop', 'skip'"),
    ],
)
def test_wrong_usage_is_one_line_that_leads_to_the_help(run, arguments, message):
    ended = run(*arguments)

    assert ended.exit_code == 2
    assert message in ended.errors
    assert len(ended.errors.splitlines()) == 1


def test_no_command_shows_the_help(run):
    ended = run()

    assert ended.exit_code == 0
    assert "Commands:" in ended.output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_with_examples(run, command):
    ended = run(command.name, "--help")

    assert ended.exit_code == 0
    assert f"  fhirpath-otel {command.name}" in ended.output.partition("Examples:")[2]


def test_the_version_is_that_of_the_package(run):
    assert run("--version").output == f"fhirpath-otel, version {fhirpath_otel.__version__}\n"


def test_what_libraries_log_is_one_line_without_a_traceback():
    record = logging.LogRecord(
        "x", logging.ERROR, "x.py", 1, "lost %s\nto it", ("it",), (ValueError, ValueError(), None)
    )

    assert _OneLine().format(record) == "warning: lost it�to it"
