"""Starts the programs of one plan, and waits until they answer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from tools.stack import processes
from tools.stack.cache import Say, locked
from tools.stack.failures import DidNotStart, RunsAlready
from tools.stack.ports import refuse_taken_ports
from tools.stack.services import SERVICES, Plan, Service
from tools.stack.variables import refuse_wrong_values

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
        """Starts every program and waits until each answers.

        Raises RunsAlready, PortTaken or, for what was set wrong, StackFailure before anything is started, and
        DidNotStart after all was ended again.
        """
        folder = self.plan.folder
        refuse_wrong_values(self.plan.variables)
        # Whoever may read it may read the traces: Jaeger and Prometheus leave their files to everybody.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(
            folder / "lock", lambda: self._say("somebody else is starting this stack; waiting for them")
        ):
            self._refuse_running(SERVICES)
            refuse_taken_ports(self.plan)
            self.plan.write_configuration()
            try:
                for service in self.plan.services().values():
                    self._launch(service)
                self._wait(SERVICES)
            except BaseException:
                self.stop()
                raise

    def start(self, name: str, **variables: str) -> None:
        """Starts one program that does not run, with these variables besides those of the plan, and waits for it."""
        self._refuse_running([name])
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
        """All that the program has said in this folder, also before it was started again."""
        return self._log_file(name).read_text(encoding="utf-8", errors="replace")

    def _refuse_running(self, names: Iterable[str]) -> None:
        known = processes.recorded(self.plan.folder, names)
        there = [running.name for running in known if running.alive()]
        ended = [running.name for running in known if running.name not in there]
        if there:
            raise RunsAlready(
                f"the stack in {self.plan.folder} runs already: {', '.join(there)}. "
                + (f"But {', '.join(ended)} ended by itself. " if ended else "")
                + "`make stack-status` shows it, `make stack-stop` ends it, `make stack-stop stack` starts it anew"
            )

    def _launch(self, service: Service) -> None:
        log = self._log_file(service.name)
        log.parent.mkdir(parents=True, exist_ok=True)
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
        processes.record(self.plan.folder, service.name, child.pid, service.health)

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
