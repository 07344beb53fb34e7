"""What people set, checked before anything is started: the programs' own words name no variable, if they object."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tools.stack.failures import WrongVariable
from tools.stack.services import PORTS

_Form = tuple[Callable[[str], object], str]


_WHOLE = re.compile(r"0|[1-9]\d*", re.ASCII)


def _from_to(minimum: int, maximum: int) -> _Form:
    return (
        # To the programs a number that begins with 0 is octal.
        lambda text: bool(_WHOLE.fullmatch(text)) and minimum <= int(text) <= maximum,
        f"a whole number from {minimum} to {maximum}, without a 0 before it",
    )


def _looks_like(pattern: str, what: str) -> _Form:
    return re.compile(pattern, re.ASCII).fullmatch, what


# A duration without its unit is nanoseconds to the programs, and they take it.
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _lasts(longest_hours: int) -> _Form:
    def fits(text: str) -> bool:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(text))
        return not _PARTS.sub("", text) and 1 <= seconds <= longest_hours * 3600

    return fits, f"numbers with their units, such as 5s, 1m30s or 72h, of 1s to {longest_hours}h"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_endpoint(text: str) -> bool:
    scheme, separator, rest = text.rpartition("://")
    name, _, port = rest.lstrip("/").rpartition(":")
    fits, _ = _from_to(1, 65535)
    return (not separator or scheme in {"http", "https", "dns"}) and bool(
        re.fullmatch(r"[^\s/:]+|\[[0-9A-Fa-f:.]+\]", name) and fits(port)
    )


def _may_be_folder(text: str) -> bool:
    path = Path(text).absolute()
    return bool(text.strip()) and next(one for one in (path, *path.parents) if one.exists()).is_dir()


_FOLDER: _Form = _may_be_folder, "a folder, there or to be made"
_FILE: _Form = (
    lambda text: Path(text).is_absolute() and Path(text).is_file(),
    "the whole path of a file that is there",
)

FORMS = {
    **{port.variable: _from_to(1, 65535) for port in PORTS},
    # It decides once a second; 0 would be too early for every trace.
    "DECISION_WAIT": _lasts(24),
    "JAEGER_RETENTION": _lasts(10 * 365 * 24),
    "SLOW_THRESHOLD_MS": _from_to(1, 24 * 3600 * 1000),
    # It refuses from 80 % of the limit on; 20 MB when idle and 60 MB for decisions that it remembers have to fit.
    "OTELCOL_MEMORY_LIMIT_MIB": _from_to(128, 1024 * 1024),
    "GOMEMLIMIT": _looks_like(r"off|[1-9]\d*([KMGT]i)?B", "off, or a number with its unit, such as 320MiB"),
    # What the queue hands over at once has to fit into it: `sending_queue.batch.min_size`.
    "OTELCOL_QUEUE_SPANS": _from_to(2048, 10**9),
    "BASELINE_PERCENTAGE": _looks_like(
        r"100(\.0+)?|(0|[1-9]\d?)(\.\d+)?", "a number from 0 to 100, without a 0 before it"
    ),
    "JAEGER_OTLP_INSECURE": _looks_like(r"true|false", "true or false"),
    "JAEGER_OTLP_ENDPOINT": (_is_endpoint, "a host and a port, such as traces.example:4317"),
    "PROMETHEUS_URL": (_is_url, "a URL with its scheme, such as http://127.0.0.1:9090"),
    "OTELCOL_STORAGE": _FOLDER,
    "JAEGER_STORAGE": _FOLDER,
    "OTELCOL_DIMENSIONS": _looks_like(
        r'"[^"\\$\s]+"(, *"[^"\\$\s]+")*', """names in double quotes, such as '"measure", "tenant"'"""
    ),
}

OVERLAY_FORMS = {
    **{port.variable: _from_to(1, 65535) for port in PORTS},
    **dict.fromkeys(("OTLP_TLS_CERT_FILE", "OTLP_TLS_KEY_FILE", "OTLP_CLIENT_CA_FILE"), _FILE),
    **dict.fromkeys(("JAEGER_TLS_CA_FILE", "JAEGER_TLS_CERT_FILE", "JAEGER_TLS_KEY_FILE"), _FILE),
    "JAEGER_AUTHORIZATION": _looks_like(r"[!-~][ -~]*", "one line of plain characters, such as 'Bearer …'"),
}
"""Of variables that nothing reads but the overlays."""

_SECRET = "JAEGER_AUTHORIZATION"  # noqa: S105 -- a name


def refuse_wrong_values(variables: Mapping[str, str], *, with_overlays: bool = False) -> None:
    """Raises WrongVariable if a variable of docs/stack.md has not the form that its program needs; empty is not set."""
    wrong = [
        f"  {name}={'…' if name == _SECRET else shlex.quote(variables[name])}: needs {form}"
        for name, (fits, form) in (FORMS | (OVERLAY_FORMS if with_overlays else {})).items()
        if variables.get(name) and not fits(variables[name])
    ]
    if wrong:
        raise WrongVariable("nothing was started, because of these variables:\n" + "\n".join(wrong))
