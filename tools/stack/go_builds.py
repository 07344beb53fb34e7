"""Builds the collector and Jaeger from Go modules, at the versions that the configuration was run with."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tools.stack.cache import Say, make_once
from tools.stack.failures import BuildFailed, ToolMissing, Unreachable

MANIFEST = Path(__file__).with_name("otelcol-builder.yaml")
COLLECTOR_VERSION = "0.155.0"
JAEGER_VERSION = "2.13.0"
# One tag names both majors of Jaeger: v1.76.0 is also 2.13.0, whose own tags Go's module rules do not allow.
_JAEGER_MODULE = "github.com/jaegertracing/jaeger"
_JAEGER_TAG = "v1.76.0"
_BUILDER = f"go.opentelemetry.io/collector/cmd/builder@v{COLLECTOR_VERSION}"
# What the `go` lines of the collector's modules ask for; Jaeger's ask for less.
_NEEDED_GO = (1, 25)
# Before it `go` does not know how to get a newer one.
_GO_THAT_GETS_ANOTHER = (1, 21)
_NETWORK_TROUBLE = re.compile(
    r"dial tcp|no such host|connection refused|connection reset|i/o timeout|network is unreachable|TLS handshake"
    r"|proxyconnect|Could not resolve host|Client\.Timeout|deadline exceeded|50[234] (Bad Gateway|Service|Gateway)"
)
_NOT_SERVED = re.compile(r"(404 Not Found|410 Gone|unknown revision|403 Forbidden)")


@dataclass(frozen=True, slots=True)
class Go:
    """The `go` command, working in `folder`, with all it says in `log`."""

    command: str
    folder: Path
    log: Path
    say: Say
    environment: Mapping[str, str]

    def run(self, step: str, *arguments: str) -> None:
        """Runs `go` with these arguments; raises Unreachable or BuildFailed with the end of the log."""
        self.say(f"  {step}")
        self._call([self.command, *arguments])

    def run_program(self, step: str, *command: str) -> None:
        """The same for a program that `go` built."""
        self.say(f"  {step}")
        self._call(list(command))

    def _call(self, command: list[str]) -> None:
        environment = (
            os.environ | {"GOBIN": str(self.folder / "bin"), "GOWORK": "off"} | dict(self.environment)
        )
        began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            ended = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if ended.returncode:
            said = self.log.read_bytes()[began:].decode(errors="replace")
            raise self._failure(command, said, ended.returncode)

    def _failure(self, command: list[str], said: str, status: int) -> Exception:
        where = f"The end of {self.log}:\n{_tail(said)}"
        if _NETWORK_TROUBLE.search(said):
            return Unreachable(
                f"Go modules could not be downloaded from {self._proxy()} (go env GOPROXY). Is the network there? "
                f"A proxy of your own: export GOPROXY=https://… and try again.\n{where}"
            )
        if _NOT_SERVED.search(said):
            return Unreachable(f"A module is not served by {self._proxy()} (go env GOPROXY).\n{where}")
        return BuildFailed(f"{' '.join(command[:2])} ended with status {status}.\n{where}")

    def _proxy(self) -> str:
        asked = subprocess.run(
            [self.command, "env", "GOPROXY"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return asked.stdout.strip() or "the module proxy"


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that Go builds: `recipe` is all that decides what comes out, apart from `version`."""

    name: str
    version: str
    usually: str
    recipe: str
    build: Callable[[Go], None]

    @property
    def folder_name(self) -> str:
        """By version and recipe, so that a changed recipe is built anew."""
        return f"{self.name}-{self.version}-{hashlib.sha256(self.recipe.encode()).hexdigest()[:8]}"

    def cached(self, cache: Path) -> Path | None:
        """The program, if it has been built."""
        path = cache / self.folder_name / self.name
        return path if path.is_file() else None

    def get(self, cache: Path, say: Say) -> Path:
        """The program, which is built now if it has not been before."""
        cached = self.cached(cache)
        if cached:
            return cached
        command, environment = _go()
        log = cache / f"{self.folder_name}.log"

        def make(folder: Path) -> None:
            say(f"{self.name} {self.version}: building with {command} ({self.usually}); log: {log}")
            log.unlink(missing_ok=True)
            began = time.monotonic()
            workshop = folder / "workshop"
            workshop.mkdir()
            self.build(Go(command, workshop, log, say, environment))
            (workshop / self.name).rename(folder / self.name)
            shutil.rmtree(workshop)
            say(f"  built in {time.monotonic() - began:.0f} s")

        cache.mkdir(parents=True, exist_ok=True)
        return make_once(cache / self.folder_name, make, say) / self.name


def _build_jaeger(go: Go) -> None:
    go.run("starting a module", "mod", "init", "example.org/jaeger")
    go.run("downloading modules", "get", "-tool", f"{_JAEGER_MODULE}/cmd/jaeger@{_JAEGER_TAG}")
    # Jaeger learns its own version from the linker.
    flags = f"-s -w -X {_JAEGER_MODULE}/internal/version.latestVersion=v{JAEGER_VERSION}"
    go.run(
        "compiling",
        "build",
        "-buildvcs=false",
        f"-ldflags={flags}",
        "-o",
        "jaeger",
        f"{_JAEGER_MODULE}/cmd/jaeger",
    )
    go.run_program("trying it", "./jaeger", "version")


def manifest_modules(manifest: str) -> list[tuple[str, str]]:
    """The modules that a builder manifest names, each with its version."""
    return re.findall(r"gomod:\s*(\S+) (v[^\s,}]+)", manifest)


def _build_collector(go: Go) -> None:
    manifest = MANIFEST.read_text(encoding="utf-8")
    (go.folder / "manifest.yaml").write_text(manifest, encoding="utf-8")
    go.run("downloading the collector's builder", "install", _BUILDER)
    go.run_program(
        "writing the collector's source",
        *("bin/builder", "--skip-get-modules", "--skip-compilation", "--config", "manifest.yaml"),
    )
    # The builder would fetch modules with `go mod tidy`, which wants those of every dependency's tests too.
    inside = replace(go, folder=go.folder / "source")
    inside.run("starting a module", "mod", "init", "example.org/otelcol")
    modules = [
        *manifest_modules(manifest),
        ("go.opentelemetry.io/collector/otelcol", f"v{COLLECTOR_VERSION}"),
    ]
    inside.run("downloading modules", "get", *(f"{module}@{version}" for module, version in modules))
    inside.run(
        "compiling",
        "build",
        "-mod=mod",
        "-buildvcs=false",
        "-ldflags=-s -w",
        "-o",
        str(go.folder / "otelcol"),
        ".",
    )
    go.run_program("trying it", "./otelcol", "--version")


def _go() -> tuple[str, dict[str, str]]:
    """The command, and what it has to find in its environment to be new enough; raises ToolMissing."""
    needed = ".".join(map(str, _NEEDED_GO))
    command = shutil.which("go")
    if command is None:
        raise ToolMissing(
            f"Go is not installed, and the collector and Jaeger are built with it: install Go {needed} or newer from "
            "https://go.dev/doc/install (packages of distributions are often older), or put otelcol-contrib and jaeger "
            "on the PATH."
        )
    asked = subprocess.run(
        [command, "env", "GOVERSION", "GOTOOLCHAIN"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    found = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    version = (int(found[1]), int(found[2])) if found else _NEEDED_GO
    if version >= _NEEDED_GO:
        return command, {}
    if version >= _GO_THAT_GETS_ANOTHER and asked.stdout.rstrip().endswith("auto"):
        return command, {"GOTOOLCHAIN": f"go{needed}.0+auto"}
    raise ToolMissing(
        f"{command} is Go {asked.stdout.split()[0][2:]}, and {needed} or newer is needed: https://go.dev/doc/install. "
        "From 1.21 on Go gets a newer one by itself, where GOTOOLCHAIN is auto."
    )


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])


COLLECTOR = GoProgram(
    "otelcol",
    COLLECTOR_VERSION,
    "3 to 10 minutes the first time, with some 500 MB of modules",
    # Not the text, whose comments build nothing.
    repr(manifest_modules(MANIFEST.read_text(encoding="utf-8"))),
    _build_collector,
)
JAEGER = GoProgram(
    "jaeger",
    JAEGER_VERSION,
    "4 to 10 minutes the first time, with some 500 MB of modules",
    _JAEGER_TAG,
    _build_jaeger,
)
