"""What each program of the stack is started with: the variables, ports and files of one run folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.stack.failures import StackFailure, WrongVariable

SERVICES = ("otelcol", "jaeger", "prometheus", "alertmanager")
CONFIGURATION = Path(__file__).resolve().parents[2] / "collector-config"
MEMORY_LIMIT_MIB = 400
"""The default of OTELCOL_MEMORY_LIMIT_MIB."""

# Of the collector's limit, as its documentation has it: from there on it refuses, so garbage has to go before.
_COLLECTS_FROM_PERCENT = 80
_CONFIGURED_BY_FILES = ("prometheus", "alertmanager")


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a program listens on, and the environment variable that moves it."""

    variable: str
    default: int
    service: str
    what: str


PORTS = (
    Port("OTLP_GRPC_PORT", 4317, "otelcol", "OTLP over gRPC"),
    Port("OTLP_HTTP_PORT", 4318, "otelcol", "OTLP over HTTP"),
    Port("OTELCOL_HEALTH_PORT", 13133, "otelcol", "health check"),
    Port("OTELCOL_TELEMETRY_PORT", 8888, "otelcol", "own metrics"),
    Port("OTELCOL_METRICS_PORT", 8889, "otelcol", "metrics for Prometheus"),
    Port("JAEGER_OTLP_GRPC_PORT", 14317, "jaeger", "OTLP over gRPC"),
    Port("JAEGER_OTLP_HTTP_PORT", 14318, "jaeger", "OTLP over HTTP"),
    Port("JAEGER_QUERY_PORT", 16686, "jaeger", "pages and API"),
    Port("JAEGER_QUERY_GRPC_PORT", 16685, "jaeger", "API over gRPC"),
    Port("JAEGER_HEALTH_PORT", 23133, "jaeger", "health check"),
    Port("JAEGER_TELEMETRY_PORT", 18888, "jaeger", "own metrics"),
    Port("PROMETHEUS_PORT", 9090, "prometheus", "pages and API"),
    Port("ALERTMANAGER_PORT", 9093, "alertmanager", "pages and API"),
)


@dataclass(frozen=True, slots=True)
class Service:
    """A program as it is to be started: its command, what it finds in its environment, and where it answers."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides how the stack runs in `folder`.

    `variables` are those of docs/stack.md. `overlays` are configuration files that the collector reads after its own.
    `replaced` are texts of Prometheus' and Alertmanager's configuration with what stands in their place: neither of the
    two reads its environment.
    """

    folder: Path
    programs: Mapping[str, Path]
    variables: Mapping[str, str] = field(default_factory=dict)
    configuration: Path = CONFIGURATION
    overlays: Sequence[Path] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)

    def port(self, variable: str) -> int:
        """The port that `variable` or its default says; raises WrongVariable where it is no port."""
        default = next(port.default for port in PORTS if port.variable == variable)
        text = self.variables.get(variable) or str(default)
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
            raise WrongVariable(f"{variable}={text!r} is no port (1 to 65535)")
        return int(text)

    def address(self, variable: str) -> str:
        """The host and port where one who runs on this machine reaches that port."""
        host = self.host(next(port for port in PORTS if port.variable == variable))
        return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port(variable)}"  # noqa: S104

    def listening(self) -> dict[str, str]:
        """Where the stack's programs listen, by the variables of their ports: each is told where the others are."""
        return {port.variable: f"{self.host(port)}:{self.port(port.variable)}" for port in PORTS}

    def host(self, port: Port) -> str:
        """The address that the port's program listens on."""
        return self.listen if port.service in {"otelcol", "jaeger"} else "127.0.0.1"

    @property
    def listen(self) -> str:
        """The address that the collector and Jaeger listen on."""
        return self.variables.get("STACK_LISTEN") or "127.0.0.1"

    @property
    def _memory_limit_mib(self) -> int:
        return int(self.variables.get("OTELCOL_MEMORY_LIMIT_MIB") or MEMORY_LIMIT_MIB)

    def services(self) -> dict[str, Service]:
        """The programs, in the order in which they are started."""
        made = (self._collector(), self._jaeger(), self._prometheus(), self._alertmanager())
        return {service.name: service for service in made}

    def write_configuration(self, services: Collection[str] = SERVICES) -> None:
        """Copies the configuration of Prometheus and Alertmanager into the folder, with this plan's addresses in it.

        Only where they are among `services`: one that runs reads what it was started with.
        """
        addresses = {f"127.0.0.1:{port.default}": self.address(port.variable) for port in PORTS}
        texts = addresses | dict(self.replaced)
        # A port is not the beginning of a longer one.
        pattern = re.compile("|".join(rf"{re.escape(text)}(?!\d)" for text in texts))
        missed = set(self.replaced)
        for name in _CONFIGURED_BY_FILES:
            texts_of_files = _texts(self.configuration / name)
            missed.difference_update(*map(pattern.findall, texts_of_files.values()))
            if name not in services:
                continue
            target = self._configured(name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(self.configuration / name, target)
            for file, text in texts_of_files.items():
                (target / file).write_text(pattern.sub(lambda found: texts[found[0]], text), encoding="utf-8")
        if missed:
            raise StackFailure(f"no file of {self.configuration} says {', '.join(sorted(missed))}")

    def _configured(self, name: str) -> Path:
        return self.folder / "configuration" / name

    def _environment(self, **more: str) -> dict[str, str]:
        """This process's own, `more` that the plan's variables may overrule, and all ports.

        Without OTEL_…, which is meant for applications: Jaeger would obey it. And without what is empty: the
        configuration's defaults hold for what is not set.
        """
        ports = {port.variable: str(self.port(port.variable)) for port in PORTS}
        given = {name: value for name, value in self.variables.items() if value}
        merged = dict(os.environ) | more | given | ports
        return {name: value for name, value in merged.items() if value and not name.startswith("OTEL_")}

    def _collector(self) -> Service:
        files = [self.configuration / "otelcol.yaml", *self.overlays]
        return Service(
            "otelcol",
            (str(self.programs["otelcol"]), *(f"--config=file:{file}" for file in files)),
            self._environment(
                GOMEMLIMIT=f"{self._memory_limit_mib * _COLLECTS_FROM_PERCENT // 100}MiB",
                OTELCOL_STORAGE=str(self.folder / "otelcol"),
                JAEGER_OTLP_ENDPOINT=self.address("JAEGER_OTLP_GRPC_PORT"),
            ),
            f"http://{self.address('OTELCOL_HEALTH_PORT')}/",
        )

    def _jaeger(self) -> Service:
        return Service(
            "jaeger",
            (str(self.programs["jaeger"]), f"--config=file:{self.configuration / 'jaeger.yaml'}"),
            self._environment(
                JAEGER_STORAGE=str(self.folder / "jaeger"),
                PROMETHEUS_URL=f"http://{self.address('PROMETHEUS_PORT')}",
            ),
            f"http://{self.address('JAEGER_HEALTH_PORT')}/status",
        )

    def _prometheus(self) -> Service:
        return Service(
            "prometheus",
            (
                str(self.programs["prometheus"]),
                f"--config.file={self._configured('prometheus') / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'prometheus'}",
                f"--web.listen-address={self.address('PROMETHEUS_PORT')}",
                "--enable-feature=exemplar-storage",
            ),
            self._environment(),
            f"http://{self.address('PROMETHEUS_PORT')}/-/ready",
        )

    def _alertmanager(self) -> Service:
        return Service(
            "alertmanager",
            (
                str(self.programs["alertmanager"]),
                f"--config.file={self._configured('alertmanager') / 'alertmanager.yml'}",
                f"--storage.path={self.folder / 'alertmanager'}",
                f"--web.listen-address={self.address('ALERTMANAGER_PORT')}",
                # It is alone; otherwise it would listen on every address for others of its kind.
                "--cluster.listen-address=",
            ),
            self._environment(),
            f"http://{self.address('ALERTMANAGER_PORT')}/-/ready",
        )


def _texts(folder: Path) -> dict[Path, str]:
    """What the YAML files below the folder say, by their paths in it."""
    return {file.relative_to(folder): file.read_text(encoding="utf-8") for file in folder.rglob("*.yml")}
