"""Every environment variable of this package, once: name, type, default, allowed range and help.

`docs/settings.md` is generated from this table. A value that cannot be read costs one log line and is replaced
by the default: a typing error in a deployment must never stop an evaluation. The standard `OTEL_*` variables
are not repeated here; `fhirpath_otel.configuration` honours them.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "OTEL_PYTHON_FHIRPATH_"

Value = float | int | str

_logger = logging.getLogger("fhirpath_otel")


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable. `name` is without the prefix; `unit` is for people."""

    name: str
    type: type[Value]
    default: Value
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    starts_with: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The full name of the environment variable."""
        return PREFIX + self.name

    @property
    def allowed(self) -> str:
        """What may stand in the variable, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.starts_with:
            return "text that starts with " + " or ".join(self.starts_with)
        if self.type is str:
            return "any text"
        kind = "a whole number" if self.type is int else "a number"
        if self.minimum is not None and self.maximum is not None:
            kind += f" from {self.minimum:g} to {self.maximum:g}"
        elif self.minimum is not None:
            kind += f" of at least {self.minimum:g}"
        return f"{kind} ({self.unit})" if self.unit else kind

    def read(self, text: str) -> Value:
        """The value that `text` stands for. Raises ValueError where it is not allowed."""
        value: Value = self.type(text.strip())
        if isinstance(value, str):
            if self.choices:
                value = value.lower()
            if (self.choices and value not in self.choices) or not value.startswith(self.starts_with or ""):
                raise ValueError(self.allowed)
            return value
        too_small = self.minimum is not None and value < self.minimum
        too_large = self.maximum is not None and value > self.maximum
        if not math.isfinite(value) or too_small or too_large:
            raise ValueError(self.allowed)
        return value


def _setting(default: Value, meaning: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": meaning, **more})


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force; an attribute's name is the variable's, in lower case and without the prefix."""

    detail: str = _setting(
        "auto",
        "How much is recorded of an evaluation: nothing, its duration, its stages too, or its operators too; `auto` is"
        " the most that the overhead budget allows for each expression. `fhirpath_otel.set_detail` changes it at run"
        " time.",
        choices=("auto", "off", "basic", "stages", "operators"),
    )
    overhead_budget: float = _setting(
        0.02, "Share of an evaluation's time that telemetry may take.", minimum=0.001, maximum=1
    )
    dimensions: str = _setting(
        "",
        "Names of baggage entries, separated by commas, such as `measure,tenant`: their values label"
        " `fhirpath.evaluation.duration` and the trace. They leave the process as they are, so name none that can"
        " carry patient data.",
    )
    slow_threshold: float = _setting(
        1.0,
        "An evaluation that takes longer is slow, whatever is usual for its expression; its trace is kept.",
        unit="seconds",
        minimum=0,
    )
    baseline_rate: float = _setting(
        0.01, "Share of the ordinary evaluations whose trace is kept.", minimum=0, maximum=1
    )
    max_traces_per_second: float = _setting(
        10.0,
        "Traces kept per second for each reason; what exceeds it is counted and weighed, not kept.",
        minimum=0,
    )
    capture_expression: str = _setting(
        "template",
        "What telemetry shows of an expression: its template (every literal replaced by `?`), only the"
        " template's hash, or the full text. The full text can carry patient data.",
        choices=("template", "hash", "full"),
    )
    tail_sampling: str = _setting(
        "own",
        "Which spans the span processor and the exporter decide about: those of evaluations only, or all of the"
        " service's (see [sampling](sampling.md) for what that does to distributed traces).",
        choices=("own", "all"),
    )
    strip_foreign: str = _setting(
        "off",
        "`on`: our exporter takes out of other instrumentations' spans what can carry data, such as statements,"
        " addresses and messages of exceptions.",
        choices=("on", "off"),
    )
    max_expressions: int = _setting(
        200,
        "Distinct expressions that metrics tell apart by hash (others are labelled `other`), and whose first"
        " sighting and usual duration are remembered.",
        minimum=0,
        maximum=500,
    )
    max_expression_length: int = _setting(
        1_000_000, "Longest expression that is parsed.", unit="characters", minimum=1
    )
    max_expression_tokens: int = _setting(25_000, "Most tokens in an expression.", unit="tokens", minimum=1)
    max_expression_depth: int = _setting(
        100, "Deepest nesting in an expression.", unit="levels", minimum=1, maximum=200
    )
    parser_cache_entries: int = _setting(
        1_000, "Parsed expressions that are remembered; 0 switches the cache off.", minimum=0
    )
    parser_cache_bytes: int = _setting(
        32 * 1024 * 1024, "Estimated memory of the remembered expressions.", unit="bytes", minimum=0
    )
    traces_directory: str = _setting(
        "",
        "Directory of the local trace files; empty stands for `$XDG_STATE_HOME/fhirpath-otel/traces`"
        " (`~/.local/state/…`).",
    )
    traces_file_bytes: int = _setting(
        64 * 1024 * 1024,
        "Most that one process keeps in its local trace files; the older half makes room for newer traces.",
        unit="bytes",
        minimum=0,
    )
    jaeger_url: str = _setting(
        "",
        "Base URL of a Jaeger user interface; the command line then prints trace ids as links.",
        starts_with=("http://", "https://"),
    )


_TYPES: dict[str, type[Value]] = {"float": float, "int": int, "str": str}

_DEFAULTS = Settings()

SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        name=item.name.upper(),
        type=_TYPES[str(item.type)],
        default=getattr(_DEFAULTS, item.name),
        **item.metadata,
    )
    for item in fields(Settings)
)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that `environ` (the process's environment by default) asks for.

    An empty variable counts as not set, as OpenTelemetry has it. A value that cannot be read is logged once, as
    a warning with the name, the value and what is allowed, and the default stands.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text = environ.get(setting.variable, "")
        if not text.strip():
            continue
        try:
            values[setting.name.lower()] = setting.read(text)
        except ValueError:
            _logger.warning(
                "%s=%.100r is not %s; using %r", setting.variable, text, setting.allowed, setting.default
            )
    return Settings(**values)


@functools.cache
def current() -> Settings:
    """The settings of this process, loaded at the first call."""
    return load()
