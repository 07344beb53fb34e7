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
    from collections.abc import Iterator, Mapping

TRACES = "traces"
METRICS = "metrics"

_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_HTTP_PORT = 4318

_logger = logging.getLogger("fhirpath_otel")


class UnusableExporter(Exception):
    """Says in one line what cannot be exported, why, and what to do."""


def make_exporters(signal: str, environ: Mapping[str, str]) -> list[Any]:
    """The exporters of a signal, ready to use. One that cannot be had costs a warning, and the others stay."""
    made = [_make_or_warn(name, signal, environ) for name in requested(signal, environ)]
    return [exporter for exporter in made if exporter is not None]


def make_otlp_exporter(signal: str, environ: Mapping[str, str]) -> Any:
    """The exporter over OTLP that the variables ask for. Raises UnusableExporter where it cannot be had."""
    return _make(signal, _entry_point_name("otlp", signal, environ))


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


def _make_or_warn(name: str, signal: str, environ: Mapping[str, str]) -> Any:
    try:
        return _make(signal, _entry_point_name(name, signal, environ))
    except UnusableExporter as problem:
        _logger.warning("%s are not exported: %s", signal, problem)
        return None


def _make(signal: str, name: str) -> Any:
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
    if not found and name in _PROTOCOLS.values():
        raise UnusableExporter("OTLP needs another package; run: pip install 'fhirpath-otel[otlp]'")
    if not found:
        variable = f"OTEL_{signal.upper()}_EXPORTER"
        raise UnusableExporter(
            f"no installed package offers {name!r}; set {variable} to otlp, console or none, or install one"
        )
    try:
        make = found[0].load()
        # Standard output is for answers.
        return make(out=sys.stderr) if name == "console" else make()
    except Exception as error:
        # The message stays out: it may quote headers, which carry credentials.
        raise UnusableExporter(
            f"{name} failed with {type(error).__name__}; check the OTEL_EXPORTER_OTLP_… variables"
        ) from error
