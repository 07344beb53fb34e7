"""Which exporters the standard `OTEL_*` variables ask for, found by the entry points that their packages register.

Asked for are those that `OTEL_TRACES_EXPORTER` and `OTEL_METRICS_EXPORTER` name; where these are not set, `otlp`
if an endpoint is set, else none. `otlp` means the protocol of `OTEL_EXPORTER_OTLP_PROTOCOL` (also per signal);
where that is not set, gRPC as in OpenTelemetry's own distribution, or HTTP for an endpoint at its port 4318.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TRACES = "traces"
METRICS = "metrics"

_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_HTTP_PORT = 4318

_logger = logging.getLogger("fhirpath_otel")


class UnusableExporter(Exception):
    """Says in one line what cannot be exported, why, and what to do."""


def exporter_factories(signal: str, environ: Mapping[str, str]) -> list[ExporterFactory]:
    """One for each exporter that is asked for."""
    return [ExporterFactory(name, signal, environ) for name in requested(signal, environ)]


class ExporterFactory:
    """Makes one exporter, or warns and gives None where it cannot be had.

    What it has found it keeps: another one is made in forked children, where a lock of Python's imports may be held.
    """

    def __init__(self, name: str, signal: str, environ: Mapping[str, str]) -> None:
        self._name = name
        self._signal = signal
        self._environ = environ
        self._found: tuple[str, Callable[..., Any]] | None = None

    def __call__(self) -> Any:
        """A new exporter, or None."""
        try:
            if self._found is None:
                name = _entry_point_name(self._name, self._signal, self._environ)
                self._found = name, _load(self._signal, name)
            return _make(*self._found)
        except UnusableExporter as problem:
            _logger.warning("%s are not exported: %s", self._signal, problem)
            return None


def make_otlp_exporter(signal: str, environ: Mapping[str, str]) -> Any:
    """The exporter over OTLP that the variables ask for. Raises UnusableExporter where it cannot be had."""
    name = _entry_point_name("otlp", signal, environ)
    return _make(name, _load(signal, name))


def requested(signal: str, environ: Mapping[str, str]) -> list[str]:
    """The names that the variables ask for; an empty variable counts as not set, `none` asks for nothing."""
    names = [name.strip() for name in environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")]
    names = [name for name in names if name]
    if not names:
        return ["otlp"] if any(_otlp_values("ENDPOINT", signal, environ)) else []
    return [name for name in dict.fromkeys(names) if name.lower() != "none"]


def _otlp_values(name: str, signal: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables of that name that are set, with their values, the signal's own first."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        value = environ.get(variable, "").strip()
        if value:
            yield variable, value


def _entry_point_name(name: str, signal: str, environ: Mapping[str, str]) -> str:
    if name.lower() != "otlp":
        return name
    variable, protocol = next(_otlp_values("PROTOCOL", signal, environ), ("", ""))
    if not protocol:
        _, endpoint = next(_otlp_values("ENDPOINT", signal, environ), ("", ""))
        protocol = "http/protobuf" if _port(endpoint) == _HTTP_PORT else "grpc"
    if protocol not in _PROTOCOLS:
        raise UnusableExporter(f"{variable}={protocol!r} is not one of {', '.join(_PROTOCOLS)}")
    return _PROTOCOLS[protocol]


def _port(endpoint: str) -> int | None:
    try:
        return urlsplit(endpoint).port
    except ValueError:
        return None


def _load(signal: str, name: str) -> Callable[..., Any]:
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
    if not found and name in _PROTOCOLS.values():
        raise UnusableExporter("OTLP needs another package; run: pip install 'fhirpath-otel[otlp]'")
    if not found:
        variable = f"OTEL_{signal.upper()}_EXPORTER"
        raise UnusableExporter(
            f"no installed package offers {name!r}; set {variable} to otlp, console or none, or install one"
        )
    try:
        make: Callable[..., Any] = found[0].load()
    except Exception as error:
        raise _failed(name, error) from error
    return make


def _make(name: str, make: Callable[..., Any]) -> Any:
    try:
        # Standard output is for answers.
        return make(out=sys.stderr) if name == "console" else make()
    except Exception as error:
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> UnusableExporter:
    # The message stays out: it may quote headers, which carry credentials.
    return UnusableExporter(
        f"{name} failed with {type(error).__name__}; check the OTEL_EXPORTER_OTLP_… variables"
    )
