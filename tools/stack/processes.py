"""The programs that run in a folder: pid files that are never taken for another process, and how they are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.stack.cache import Say
from tools.stack.failures import StackFailure

LOOKS_AGAIN = 0.1
"""Seconds between two looks at something that takes its time."""

# Loopback is never reached through the proxy that HTTP_PROXY may name.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Running:
    """What a pid file says of a program: its process, when that began, where it answers, and where all listen."""

    name: str
    pid: int
    began: str
    health: str
    listening: Mapping[str, str]

    def alive(self) -> bool:
        """Whether that very process is there; another one may have got its number since."""
        return bool(self.began) and beginning(self.pid) == self.began

    def healthy(self) -> bool:
        """Whether it answers its health check."""
        try:
            with _direct.open(self.health, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def signal(self, what: signal.Signals) -> None:
        """Sends the signal, unless the process has ended."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, what)


def beginning(pid: int) -> str:
    """When the process began, as a text that no other process has had with this number; empty if it has ended."""
    if not Path("/proc/self/stat").exists():
        return _beginning_by_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # After the name in parentheses, which may hold anything: state is the first field, start time the twentieth.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return ""
    # The start time counts from the boot.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {fields[19]}"


def _beginning_by_ps(pid: int) -> str:
    asked = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )
    state, _, began = asked.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()


def record(folder: Path, name: str, pid: int, health: str, listening: Mapping[str, str]) -> None:
    """Writes the pid file of a process that has just been started."""
    file = _pid_file(folder, name)
    partial = file.with_suffix(".partial")
    known = {"pid": pid, "began": beginning(pid), "health": health, "listening": dict(listening)}
    partial.write_text(json.dumps(known), encoding="utf-8")
    partial.replace(file)


def recorded(folder: Path, names: Iterable[str]) -> list[Running]:
    """What the pid files in the folder say of these programs, whether or not they still run."""
    found = []
    for name in names:
        # One that is not readable names no process that could be ended.
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            known = json.loads(_pid_file(folder, name).read_text(encoding="utf-8"))
            found.append(
                Running(
                    name,
                    int(known["pid"]),
                    str(known["began"]),
                    str(known["health"]),
                    dict(known.get("listening", {})),
                )
            )
    return found


def stop(folder: Path, names: Iterable[str], say: Say, *, patience: float = 20) -> list[str]:
    """Ends those of these programs that run, and returns their names.

    They are asked (SIGTERM), and killed when they have not ended after `patience` seconds.
    """
    names = tuple(names)
    ended = [running for running in recorded(folder, names) if running.alive()]
    for running in ended:
        running.signal(signal.SIGTERM)
    for running in _still_there(ended, patience):
        say(f"{running.name} has not ended after {patience:g} s: it is killed")
        kill(running)
    for name in names:
        _pid_file(folder, name).unlink(missing_ok=True)
    return [running.name for running in ended]


def kill(running: Running) -> None:
    """Ends the program without its doing (SIGKILL)."""
    running.signal(signal.SIGKILL)
    if _still_there([running], 10):
        raise StackFailure(f"{running.name} (process {running.pid}) cannot be ended")


def _still_there(those: list[Running], patience: float) -> list[Running]:
    until = time.monotonic() + patience
    while (left := [running for running in those if running.alive()]) and time.monotonic() < until:
        time.sleep(LOOKS_AGAIN)
    return left


def _pid_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pid"
