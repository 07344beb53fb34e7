"""The stack's real programs, on ports and in a folder of the test's own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.stack.clients import Alertmanager, Jaeger, Prometheus, get_text
from tests.stack.figures import FIGURES, Figures
from tools.stack.ports import free_ports
from tools.stack.processes import recorded
from tools.stack.programs import find_all
from tools.stack.running import Runner
from tools.stack.services import Plan

# A test waits for a decision, a scrape and a rule; none of them takes longer for more traffic than a test makes.
QUICKLY = {"DECISION_WAIT": "1s"}
SCRAPED_QUICKLY = {
    "scrape_interval: 15s": "scrape_interval: 1s",
    "scrape_timeout: 10s": "scrape_timeout: 1s",
    "evaluation_interval: 30s": "evaluation_interval: 1s",
}


@dataclass
class Stack:
    """The running programs: where they are reached, and what can be done to them."""

    runner: Runner
    jaeger: Jaeger
    prometheus: Prometheus
    alertmanager: Alertmanager

    @classmethod
    def of(cls, runner):
        def url(variable):
            return f"http://{runner.plan.address(variable)}"

        return cls(
            runner,
            Jaeger(url("JAEGER_QUERY_PORT")),
            Prometheus(url("PROMETHEUS_PORT")),
            Alertmanager(url("ALERTMANAGER_PORT")),
        )

    @property
    def grpc(self):
        """Where the collector takes OTLP over gRPC, as OTEL_EXPORTER_OTLP_ENDPOINT has it."""
        return f"http://{self.runner.plan.address('OTLP_GRPC_PORT')}"

    @property
    def http(self):
        """The same over HTTP, without the path of a signal."""
        return f"http://{self.runner.plan.address('OTLP_HTTP_PORT')}"

    def application_environment(self, service, **more):
        """The environment of an application that sends here: nothing but what the documentation asks for."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        return inherited | {"OTEL_SERVICE_NAME": service, "OTEL_EXPORTER_OTLP_ENDPOINT": self.grpc} | more

    def log(self, name):
        """All that a program has said."""
        return self.runner.log(name)

    def own_metrics(self, name):
        """What the collector or Jaeger count of themselves, now: values by series, as Prometheus' text has them."""
        variable = {"otelcol": "OTELCOL_TELEMETRY_PORT", "jaeger": "JAEGER_TELEMETRY_PORT"}[name]
        text = get_text(f"http://{self.runner.plan.address(variable)}/metrics")
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, value in pairs}

    def pid(self, name):
        return recorded(self.runner.plan.folder, [name])[0].pid

    def kill(self, name):
        """Ends a program with SIGKILL."""
        self.runner.kill(name)

    def stop(self, name):
        """Asks a program to end, and returns when it has."""
        self.runner.stop(name)

    def start(self, name, **variables):
        """Starts a program that was ended, with these variables besides; returns when it answers."""
        self.runner.start(name, **variables)

    @contextmanager
    def changed(self, name, **variables):
        """Restarts a program with these variables, and again without them at the end."""
        self.stop(name)
        self.start(name, **variables)
        try:
            yield
        finally:
            self.stop(name)
            self.start(name)


@pytest.fixture(scope="session")
def stack_programs(pytestconfig, absent):
    """The paths of the programs, by name. Nothing is fetched in a test."""
    said = []
    found = find_all(said.append)
    missing = [name for name, program in found.items() if program is None]
    if missing:
        absent(f"no {', '.join(missing)} here: `make stack-programs` gets what is missing. " + " ".join(said))
    pytestconfig.stash[FIGURES].versions = {name: program.version for name, program in found.items()}
    return {name: program.path for name, program in found.items()}


@pytest.fixture(scope="session")
def make_stack(stack_programs):
    """Starts a stack in a folder, as a context manager: variables, and what else a Plan takes."""

    @contextmanager
    def make(folder, *, replaced=None, overlays=(), **variables):
        plan = Plan(
            folder,
            stack_programs,
            QUICKLY | variables | free_ports(),
            overlays=overlays,
            replaced=SCRAPED_QUICKLY | (replaced or {}),
        )
        runner = Runner(plan, print)
        runner.start_all()
        try:
            yield Stack.of(runner)
        finally:
            runner.stop()

    return make


@pytest.fixture(scope="session")
def stack(make_stack, tmp_path_factory):
    """The stack that tests share. Services tell their data apart: each test has a `service.name` of its own."""
    with make_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def own_stack(make_stack, tmp_path):
    """A stack for one test, which may do to it what it likes."""
    with make_stack(tmp_path) as running:
        yield running


def pytest_configure(config):
    config.stash[FIGURES] = Figures()


def pytest_terminal_summary(terminalreporter, config):
    lines = list(config.stash[FIGURES].lines())
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture
def figures(pytestconfig):
    """Takes what a test measured, for the table at the end."""
    return pytestconfig.stash[FIGURES]
