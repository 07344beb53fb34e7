"""Finds the stack's programs on the PATH, or gets them: collector and Jaeger with Go, the others from Debian."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.stack import go_builds
from tools.stack.cache import Say, cache_folder
from tools.stack.debian import DebianPackage
from tools.stack.failures import StackFailure
from tools.stack.go_builds import GoProgram

# The variable that has the PATH disregarded, and its value that does so.
CHOICE, OURS = "FHIRPATH_OTEL_STACK_PROGRAMS", "ours"


@dataclass(frozen=True, slots=True)
class Found:
    """A program that is there, and the version that it says it is; empty if it does not tell."""

    path: Path
    version: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the stack: what it is called on a PATH, and how it is got otherwise."""

    name: str
    commands: tuple[str, ...]
    known_version: str
    asks_version: str
    source: GoProgram | DebianPackage
    objection: Callable[[str], str] | None = None
    """Tells of a program on the PATH why it will not do, although it has the name; empty if it will."""

    def find(self, cache: Path, say: Say, *, path: bool = True) -> Found | None:
        """The program on the PATH (if `path`), else in the cache, else None: nothing is fetched."""
        command = next(filter(None, map(shutil.which, self.commands)), None) if path else None
        if command:
            found = self._on_the_path(command, say)
            if found:
                return found
        cached = self.source.cached(cache)
        return Found(cached, self._version(str(cached)) or "", ours=True) if cached else None

    def get(self, cache: Path, say: Say, *, path: bool = True) -> Found:
        """The program, got now if it is neither on the PATH nor in the cache; raises StackFailure."""
        found = self.find(cache, say, path=path)
        if found is None:
            got = self.source.get(cache, say)
            found = Found(got, self._version(str(got)) or "", ours=True)
        return found

    def _on_the_path(self, command: str, say: Say) -> Found | None:
        version = self._version(command)
        if version is None:
            say(f"{self.name}: {command} is not used: it does not run")
            return None
        objection = self.objection(command) if self.objection else ""
        if objection:
            say(f"{self.name}: {command} is not used: {objection}")
            return None
        if version != self.known_version:
            say(
                f"{self.name}: {command} is used, whose version is {version or 'unknown'}; the configuration was run "
                f"with {self.known_version}. To use ours: {CHOICE}={OURS}"
            )
        return Found(Path(command), version, ours=False)

    def _version(self, command: str) -> str | None:
        said = _said(command, self.asks_version)
        number = re.search(r"\d+\.\d+\.\d+", said) if said is not None else None
        return None if said is None else number[0] if number else ""


def _said(*command: str) -> str | None:
    """What the command printed, on either stream; None if it cannot be run, or fails."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if ended.returncode else ended.stdout


def _missing_components(collector: str) -> str:
    """What the manifest names and this collector has not; distributions differ in what they are made of."""
    components = _said(collector, "components") or ""
    there = set(re.findall(r"module: (\S+)", components))
    wanted = [
        module for module, _ in go_builds.manifest_modules(go_builds.MANIFEST.read_text(encoding="utf-8"))
    ]
    lacking = [module.rpartition("/")[2] for module in wanted if module not in there]
    return f"it lacks {', '.join(lacking)}" if lacking else ""


PROGRAMS = (
    Program(
        "otelcol",
        ("otelcol-contrib", "otelcol"),
        go_builds.COLLECTOR_VERSION,
        "--version",
        go_builds.COLLECTOR,
        _missing_components,
    ),
    Program("jaeger", ("jaeger",), go_builds.JAEGER_VERSION, "version", go_builds.JAEGER),
    Program(
        "prometheus",
        ("prometheus",),
        "2.42.0",
        "--version",
        DebianPackage("prometheus", "usr/bin/prometheus"),
    ),
    Program(
        "promtool", ("promtool",), "2.42.0", "--version", DebianPackage("prometheus", "usr/bin/promtool")
    ),
    Program(
        "alertmanager",
        ("alertmanager", "prometheus-alertmanager"),  # the second is what Debian calls it
        "0.25.0",
        "--version",
        DebianPackage("prometheus-alertmanager", "usr/bin/prometheus-alertmanager"),
    ),
)


def find_all(say: Say, environ: Mapping[str, str] = os.environ) -> dict[str, Found | None]:
    """Every program that is there, by name, and None for those that are not."""
    cache = cache_folder(environ)
    return {program.name: program.find(cache, say, path=_path_counts(environ)) for program in PROGRAMS}


def get_all(say: Say, environ: Mapping[str, str] = os.environ) -> dict[str, Found]:
    """Every program by name, each got if it was not there.

    Raises StackFailure once all were tried, so that one run tells all that is missing; its type is that of the first.
    """
    cache = cache_folder(environ)
    outcomes = {
        program.name: _got_or_failed(program, cache, say, path=_path_counts(environ)) for program in PROGRAMS
    }
    failures = [outcome for outcome in outcomes.values() if isinstance(outcome, StackFailure)]
    if failures:
        # Two programs that want for the same say the same.
        raise type(failures[0])("\nstack: ".join(dict.fromkeys(map(str, failures)))) from failures[0]
    return {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Found)}


def _got_or_failed(program: Program, cache: Path, say: Say, *, path: bool) -> Found | StackFailure:
    try:
        return program.get(cache, say, path=path)
    except StackFailure as failure:
        return failure


def _path_counts(environ: Mapping[str, str]) -> bool:
    return environ.get(CHOICE) != OURS
