"""What tests measured, printed at the end of the run as docs/stack.md has it."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

FIGURES = pytest.StashKey()


class Figures:
    """Rows of one table for each test that measured something."""

    def __init__(self):
        self.tables = {}
        self.versions = {}

    def __call__(self, title, **rows):
        """Takes rows; a name's underscores are spaces."""
        self.tables.setdefault(title, {}).update(rows)

    def lines(self):
        if self.tables:
            versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
            yield f"{datetime.now(timezone.utc).date()}: {versions}"
            yield f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end"
        for title, rows in self.tables.items():
            yield from ("", f"| {title} | |", "| --- | --- |")
            yield from (f"| {name.replace('_', ' ')} | {_text(item)} |" for name, item in rows.items())


def _text(item):
    return f"{item:,}" if isinstance(item, int) else f"{item:,.2f}" if isinstance(item, float) else str(item)


def most_memory(pid):
    """Bytes of resident memory that the process had at the most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def processor_seconds(pid):
    """Seconds that the process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
