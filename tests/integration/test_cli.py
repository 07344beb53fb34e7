"""The command line as a process of its own: what it prints where, how it fails, and how it is stopped."""

from __future__ import annotations

import gzip
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from fhirpath_otel import population

PATIENT = (
    '{"resourceType":"Patient","id":"1","name":[{"use":"official","family":"Amsel","given":["Ada","Jo"]}]}\n'
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A user without any configuration, whose files are all in a temporary folder."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "XDG_"))}
    return kept | {"HOME": str(home), "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def start(environment):
    """Starts the command line with these arguments."""

    def start(*arguments, **options):
        command = [sys.executable, "-m", "fhirpath_otel", *map(str, arguments)]
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": environment,
        } | options
        return subprocess.Popen(command, **options)

    return start


@pytest.fixture(scope="module")
def run(start):
    """Runs the command line with these arguments to its end."""

    def run(*arguments, text=None, **options):
        if text is not None:
            options["stdin"] = subprocess.PIPE
        process = start(*arguments, **options)
        output, errors = process.communicate(text, timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder with the files of a small population."""
    folder = tmp_path_factory.mktemp("people")
    population.write(folder, 200)
    return folder


@pytest.fixture(scope="module")
def database(run, people, tmp_path_factory):
    """A database with that population."""
    path = tmp_path_factory.mktemp("database") / "people.duckdb"
    loaded = run("load", path, people)
    assert loaded.returncode == 0, loaded.stderr
    return path


def failed(ended, exit_code, *said):
    """Whether it failed with one clear line that says all this, and with nothing on standard output."""
    assert ended.returncode == exit_code, ended.stderr
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ")
    for words in said:
        assert str(words) in line
    return True


# --- loading


def test_a_load_tells_what_was_loaded(run, people, tmp_path):
    ended = run("load", tmp_path / "a.duckdb", people)

    assert ended.returncode == 0
    counts = Counter(one["resourceType"] for one in population.generate(200))
    for resource_type, count in counts.items():
        assert f"{count:,} {resource_type}" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.ndjson", b"", ()),
        ("binary.ndjson", bytes(range(256)) * 8, ()),
        ("no-fhir.ndjson", b'{"a": 1}\n', ("no-fhir.ndjson:1",)),
        (
            "unknown.ndjson",
            b'{"resourceType":"Patiant","id":"1"}\n',
            ("unknown.ndjson:1", "Patiant", "Patient"),
        ),
        ("broken.ndjson", PATIENT.encode() * 2 + b'{"resourceType":\n', ("broken.ndjson:3",)),
        ("no-gzip.ndjson.gz", b"\x1f\x8bno gzip at all", ("no-gzip.ndjson.gz",)),
        ("cut.ndjson.gz", gzip.compress(PATIENT.encode() * 2000)[:-60], ("cut.ndjson.gz",)),
    ],
)
def test_a_broken_input_is_one_line_with_its_place_and_nothing_is_loaded(run, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "fine.ndjson").write_text(PATIENT, encoding="utf-8")
    database = tmp_path / "a.duckdb"

    assert failed(run("load", database, tmp_path / "fine.ndjson", tmp_path / name), 1, name, *said)
    assert list(tmp_path.glob("a.duckdb*")) == []
    assert run("load", database, tmp_path / "fine.ndjson").returncode == 0
    assert failed(run("load", database, tmp_path / "fine.ndjson", tmp_path / name), 1, name, *said)
    assert run("evaluate", database, "Patient.id", "--format", "csv").stdout == "id,value\n1,1\n"


def test_a_missing_path_is_wrong_usage(run, tmp_path):
    assert failed(run("load", tmp_path / "a.duckdb", tmp_path / "nope.ndjson"), 2, "nope.ndjson")


def test_an_empty_path_is_wrong_usage_and_not_the_current_folder(run, people, tmp_path):
    assert failed(run("load", tmp_path / "a.duckdb", "", cwd=people), 2, "empty path")


def test_skip_loads_the_rest_and_lists_what_it_left_out(run, tmp_path):
    (tmp_path / "some.ndjson").write_text(PATIENT + '{"resourceType":\n', encoding="utf-8")

    ended = run("load", tmp_path / "a.duckdb", tmp_path / "some.ndjson", "--on-error", "skip")

    assert ended.returncode == 0
    assert "some.ndjson:2" in ended.stdout + ended.stderr
    assert run("evaluate", tmp_path / "a.duckdb", "Patient.name.given", "--format", "csv").stdout == (
        "id,value\n1,Ada\n1,Jo\n"
    )


# --- databases


def test_a_file_that_is_no_database_is_refused(run, people, tmp_path):
    path = tmp_path / "text.duckdb"
    path.write_text("no database at all\n" * 1000, encoding="utf-8")

    assert failed(run("evaluate", path, "Patient.id"), 1, "text.duckdb")
    assert failed(run("load", path, people), 1, "text.duckdb")


def test_a_database_that_is_not_there_is_refused_and_not_made(run, tmp_path):
    path = tmp_path / "nope.duckdb"

    assert failed(run("evaluate", path, "Patient.id"), 1, "nope.duckdb")
    assert not path.exists()


def test_a_database_that_another_process_has_open_is_refused(run, database, people, tmp_path):
    code = f"import duckdb, sys; c = duckdb.connect({str(database)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        assert failed(run("load", database, people), 1, "people.duckdb")
        other.stdin.close()


def test_a_full_disk_fails_a_load_with_one_line(run, people, tmp_path):
    # No file may grow beyond 1 MiB: what a full disk does, without filling one.
    limited = run(
        "load",
        tmp_path / "a.duckdb",
        people,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
    )

    assert failed(limited, 1, "a.duckdb cannot grow: the file size is limited")
    assert list(tmp_path.glob("a.duckdb*")) == []


@pytest.mark.parametrize("url", ["postgresql://ada:s3cret@localhost/db", "mysql://ada:s3cret@localhost/db"])
def test_another_kind_of_database_is_wrong_usage_and_its_password_stays_secret(run, url):
    ended = run("evaluate", url, "Patient.id")

    assert failed(ended, 2)
    assert "s3cret" not in ended.stderr


# --- expressions


def test_answers_are_those_of_the_data(run, database):
    ended = run("evaluate", database, "Patient.name.where(use = 'official').given", "--format", "ndjson")

    expected = [
        {"id": one["id"], "value": given}
        for one in population.generate(200)
        if one["resourceType"] == "Patient"
        for given in one["name"][0]["given"]
    ]
    assert ended.returncode == 0
    assert [json.loads(line) for line in ended.stdout.splitlines()] == expected


def test_decimals_come_back_to_the_digit(run, database):
    ended = run("evaluate", database, "Observation.value.ofType(Quantity).value", "--format", "ndjson")

    expected = [
        one["valueQuantity"]["value"]
        for one in population.generate(200)
        if one["resourceType"] == "Observation" and "valueQuantity" in one
    ]
    values = [
        json.loads(line, parse_float=Decimal, parse_int=Decimal)["value"]
        for line in ended.stdout.splitlines()
    ]
    assert list(map(str, values)) == list(map(str, expected))


def test_expressions_come_from_standard_input_too(run, database):
    ended = run("evaluate", database, "--file", "-", "--format", "csv", text="# count\nPatient.id.count()\n")

    assert ended.returncode == 0
    assert ended.stdout.count(",1\n") == 200


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("table", "id  value\n1   M\\xfcller\n1 item in 1 resource\n"),
        ("csv", "id,value\n1,Müller\n"),
        ("ndjson", '{"id":"1","value":"Müller"}\n'),
    ],
)
def test_an_output_without_the_letters_of_a_value_gets_them_escaped(run, environment, tmp_path, form, output):
    (tmp_path / "a.ndjson").write_text(PATIENT.replace("Amsel", "Müller"), encoding="utf-8")
    run("load", tmp_path / "a.duckdb", tmp_path / "a.ndjson")
    ascii_only = environment | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}

    arguments = ["evaluate", tmp_path / "a.duckdb", "Patient.name.family", "--format", form]
    ended = run(*arguments, env=ascii_only, encoding="utf-8")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == output


def test_several_expressions_share_one_trace(run, database):
    ended = run("evaluate", database, "Patient.id", "Patient.gender", "--format", "csv")

    traces = {line.split()[1] for line in ended.stderr.splitlines() if line.startswith("trace ")}
    assert len(traces) == 1
    assert len(ended.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["Immunization.id"], 1, ["Immunization", "Patient"]),
        (["id", "--resource-type", "Patiant"], 2, ["Patiant", "Patient"]),
    ],
)
def test_an_expression_that_cannot_be_evaluated_here_is_one_line(run, database, arguments, exit_code, said):
    assert failed(run("evaluate", database, *arguments), exit_code, *said)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "empty"),
        ("id", "resource type"),
        ("Patient.", "end of the expression"),
        ("Patient.birthdate", "did you mean 'birthDate'?"),
        ("Patient.name.foo()", "foo"),
        ("Patient.name.trace('x')", "memory"),
    ],
)
def test_a_wrong_expression_is_one_line_and_its_place(run, database, expression, said):
    ended = run("evaluate", database, expression, "--mode", "sql")

    message, text, marks = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert message.startswith("error: ")
    assert said in message
    assert text == f"  {expression}"
    assert marks.strip(" ") == "^" * len(marks.strip(" "))


# --- being stopped


def test_a_reader_that_goes_away_ends_it_in_silence(start, database):
    with start("evaluate", database, "Observation.code.coding.display", "--format", "ndjson") as process:
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert process.returncode == 141
    assert "error" not in errors.lower()


def test_a_reader_of_a_table_that_goes_away_ends_it_in_silence(start, database):
    with start("evaluate", database, "Observation.code.coding.display", "--limit", "0") as process:
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert process.returncode == 141
    assert "error" not in errors.lower()


def test_ctrl_c_while_answers_are_written_ends_it(start, database):
    with start("evaluate", database, "Observation.code.coding.display", "--format", "ndjson") as process:
        # Nobody reads on, so it waits with the pipe full until the signal comes.
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted"


def test_ctrl_c_stops_a_load_and_leaves_the_database_as_it_was(start, run, people, tmp_path):
    database, many = tmp_path / "a.duckdb", tmp_path / "many"
    many.mkdir()
    (tmp_path / "one.ndjson").write_text(PATIENT, encoding="utf-8")
    for number in range(40):
        shutil.copy(people / "Observation.ndjson", many / f"{number}.ndjson")
    assert run("load", database, tmp_path / "one.ndjson").returncode == 0
    terminal, theirs = pty.openpty()

    with start("load", database, many, stderr=theirs) as process:
        os.close(theirs)
        # The bar shows as soon as the load has begun.
        shown = os.read(terminal, 1000)
        while b"Loading" not in shown:
            shown += os.read(terminal, 1000)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # how Linux says that the other side of a terminal is closed
            while more := os.read(terminal, 1000):
                shown += more
    os.close(terminal)

    assert process.returncode == 130
    assert shown.decode().strip().endswith("error: interrupted")
    assert run("evaluate", database, "Patient.id", "--format", "csv").stdout == "id,value\n1,1\n"
    assert failed(run("evaluate", database, "Observation.id"), 1, "Observation")


def test_a_full_disk_under_the_output_is_one_line(run, database):
    with Path("/dev/full").open("wb") as full:
        ended = run("evaluate", database, "Patient.id", "--format", "csv", stdout=full)

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: output: No space left on device"


# --- the demonstration


def test_the_demo_shows_answers_a_trace_and_a_command_that_works(run, environment):
    ended = run("demo", "--patients", "50")

    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    *_, command = ended.stdout.splitlines()
    pasted = ["sh", "-c", command]
    again = subprocess.run(pasted, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "SELECT" in again.stdout + again.stderr
