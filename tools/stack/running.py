"""Starts the programs of one plan, and waits until they answer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.stack import processes
from tools.stack.cache import Say, locked
from tools.stack.failures import DidNotStart, RunsAlready
from tools.stack.ports import refuse_taken_ports
from tools.stack.processes import Running
from tools.stack.services import SERVICES, Plan, Service

LOG_BYTES = 10_000_000
"""A log that is longer when its program is started is set aside, and the one that was set aside before is gone."""

_LINES_SHOWN = 20
_UNRECORDED_PATIENCE = 20


class Runner:
    """The programs of one plan: those that run are known by the pid files in its folder, whoever started them."""

    def __init__(self, plan: Plan, say: Say, *, patience: float = 60) -> None:
        self.plan = plan
        self._say = say
        self._patience = patience
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        """Starts every program that does not run, leaves the others alone, and waits until what was started answers.

        Raises RunsAlready where none is missing, PortTaken or WrongVariable before anything is started, and DidNotStart
        after what it started was ended again.
        """
        folder = self.plan.folder
        # Whoever may read it may read the traces: Jaeger and Prometheus leave their files to everybody.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(
            folder / "lock", lambda: self._say("somebody else is starting this stack; waiting for them")
        ):
            services = self.plan.services()
            missing = self._missing(services)
            refuse_taken_ports(self.plan, missing)
            self.plan.write_configuration(missing)
            self._say(f"starting {', '.join(missing)}")
            try:
                for name in missing:
                    self._launch(services[name])
                self._wait(missing)
            except BaseException:
                self.stop(*missing)
                raise

    def start(self, name: str, **variables: str) -> None:
        """Starts one program that does not run, with these variables besides those of the plan, and waits for it."""
        if self._running([name]):
            raise self._runs_already([name])
        self._reap(name)
        service = self.plan.services()[name]
        environment = dict(service.environment) | variables
        self._launch(Service(name, service.command, environment, service.health))
        self._wait([name])

    def stop(self, *names: str) -> None:
        """Asks these programs to end, or all; returns when they have."""
        processes.stop(self.plan.folder, names or SERVICES, self._say)
        for name in names or SERVICES:
            self._reap(name)

    def kill(self, name: str) -> None:
        """Ends one program as if it had crashed."""
        for running in processes.recorded(self.plan.folder, [name]):
            processes.kill(running)
        self._reap(name)

    def log(self, name: str) -> str:
        """What the program has said in this folder, also before it was started again, as far as that is kept."""
        return self._log_file(name).read_text(encoding="utf-8", errors="replace")

    def _running(self, names: Iterable[str]) -> list[Running]:
        return [one for one in processes.recorded(self.plan.folder, names) if one.alive()]

    def _missing(self, services: Mapping[str, Service]) -> list[str]:
        """The programs that do not run; raises RunsAlready if none is missing, or others look for them elsewhere."""
        running = self._running(services)
        missing = [name for name in services if name not in {one.name for one in running}]
        planned = self.plan.listening()
        moved = [name for name in planned if any(one.listening.get(name) != planned[name] for one in running)]
        if moved or not missing:
            raise self._runs_already(
                [one.name for one in running], f" with other addresses ({', '.join(moved)})" if moved else ""
            )
        if running:
            self._say(f"left alone, as they were started: {', '.join(one.name for one in running)}")
        return missing

    def _runs_already(self, names: Iterable[str], how: str = "") -> RunsAlready:
        return RunsAlready(
            f"the stack in {self.plan.folder} runs already{how}: {', '.join(names)}. `make stack-status` shows it, "
            "`make stack-stop` ends it, `make stack-stop stack` starts it anew"
        )

    def _launch(self, service: Service) -> None:
        log = self._log_file(service.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(_older(log))
        # Appended to, so that it may be emptied while the program runs.
        with log.open("ab") as output:
            output.write(f"--- {' '.join(service.command)}\n".encode())
            output.flush()
            try:
                child = subprocess.Popen(
                    service.command,
                    cwd=self.plan.folder,
                    env=dict(service.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # So that Ctrl-C in the terminal, or its end, reaches none of them.
                    start_new_session=True,
                )
            except OSError as error:
                raise DidNotStart(f"{service.name} cannot be run: {error}") from error
        self._children[service.name] = child
        processes.record(self.plan.folder, service.name, child.pid, service.health, self.plan.listening())

    def _reap(self, name: str) -> None:
        """Takes note of the end of a program that was started here, as its parent has to.

        One that has no pid file, since we were interrupted just then, is ended now.
        """
        child = self._children.pop(name, None)
        if child:
            child.terminate()
            try:
                child.wait(_UNRECORDED_PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _wait(self, names: Iterable[str]) -> None:
        until = time.monotonic() + self._patience
        waiting = processes.recorded(self.plan.folder, names)
        while waiting:
            for running in waiting:
                if not running.alive():
                    raise DidNotStart(
                        f"{running.name} ended when it was started. {self._last_words(running.name)}"
                    )
            waiting = [running for running in waiting if not running.healthy()]
            if waiting and time.monotonic() > until:
                name, health = waiting[0].name, waiting[0].health
                raise DidNotStart(
                    f"{name} does not answer at {health} after {self._patience:g} s. {self._last_words(name)}"
                )
            time.sleep(processes.LOOKS_AGAIN if waiting else 0)

    def _last_words(self, name: str) -> str:
        since_start = self.log(name).rpartition("--- ")[2]
        lines = "\n".join(f"  | {line}" for line in since_start.splitlines()[-_LINES_SHOWN:])
        return f"The end of {self._log_file(name)}:\n{lines}"

    def _log_file(self, name: str) -> Path:
        return self.plan.folder / "logs" / f"{name}.log"


def _older(log: Path) -> Path:
    return log.with_suffix(".log.1")
