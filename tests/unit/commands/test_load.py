"""`load`: progress, and what is told afterwards."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fhirpath_otel.commands.load import print_load, progress
from fhirpath_otel.databases.duckdb_load import Counts, Dropped, LoadReport, Skipped


def console(*, terminal=False):
    return Console(
        file=io.StringIO(),
        width=100,
        force_terminal=terminal,
        color_system=None,
        markup=False,
        highlight=False,
    )


def report(**changes):
    plain = {
        "types": {"Condition": Counts(loaded=7), "Patient": Counts(loaded=1200, replaced=3, unchanged=4)},
        "files": 2,
        "bytes": 3_000_000,
        "seconds": 0.5,
        "skipped": (),
        "skipped_count": 0,
        "entries_without_resource": 0,
        "ignored": (),
        "dropped": (),
    }
    return LoadReport(**(plain | changes))


def told(report):
    to = console()
    print_load(report, to)
    return to.file.getvalue()


def test_the_resources_of_each_type_are_told():
    assert told(report()) == (
        "Loaded 1,214 resources of 2 files (3.00 MB in 500 ms, 6.00 MB/s)\n"
        "           7 Condition\n"
        "       1,207 Patient (3 replaced, 4 unchanged)\n"
    )


def test_further_copies_of_a_resource_are_told():
    types = {"Patient": Counts(loaded=1, repeated=2)}
    assert told(report(types=types, files=1)) == (
        "Loaded 1 resource of 1 file (3.00 MB in 500 ms, 6.00 MB/s)\n"
        "           1 Patient (2 further copies left out)\n"
    )


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {
                "skipped": (Skipped("a.ndjson", 7, "no id"), Skipped("b\n.gz", None, "cut off")),
                "skipped_count": 2,
            },
            ["Skipped 2:", "  a.ndjson:7: no id", "  b�.gz: cut off"],
        ),
        (
            {"skipped": (Skipped("a.ndjson", 1, "no id"),) * 100, "skipped_count": 1234},
            ["Skipped 1,234:", *["  a.ndjson:1: no id"] * 20, "  … and 1,214 more"],
        ),
        ({"ignored": ("x/readme.txt",)}, ["Not loaded, by their names, 1:", "  x/readme.txt"]),
        ({"entries_without_resource": 1}, ["1 Bundle entry has no resource"]),
        ({"entries_without_resource": 5}, ["5 Bundle entries have no resource"]),
        (
            {"dropped": (Dropped("Patient.foo", "unknown element"),)},
            ["Kept in the resources, but not seen by SQL, 1:", "  Patient.foo: unknown element"],
        ),
    ],
)
def test_what_was_left_out_is_listed(changes, lines):
    assert told(report(**changes)).splitlines()[3:] == lines


def test_without_a_terminal_progress_is_a_line_every_few_seconds():
    now = iter([0.0, 1.0, 6.0, 6.0, 7.0, 12.0, 12.0])
    to = console()

    with progress(to, lambda: next(now)) as show:
        for done in (10, 20, 30, 40):
            show(done * 1_000_000, 40_000_000)

    assert to.file.getvalue() == "Loading: 50 % of 40.0 MB\nLoading: 100 % of 40.0 MB\n"


def test_on_a_terminal_progress_is_a_bar_that_goes_away():
    to = console(terminal=True)

    with progress(to) as show:
        show(10_000_000, 40_000_000)

    written = to.file.getvalue()
    assert "10.0/40.0 MB" in written
    assert written.endswith("\x1b[2K")
