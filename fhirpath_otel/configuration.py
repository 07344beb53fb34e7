"""Sets up the OpenTelemetry SDK from the standard `OTEL_*` variables, and makes this process's recorder.

Where a host has set a provider already, it stays and is used. `own_sdk.py` is what is set up here.

Without an endpoint and without an exporter asked for, nothing is exported: a command line on a laptop has no
collector, and must not complain about that.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from opentelemetry import metrics

from fhirpath_otel import semconv, settings
from fhirpath_otel.analysis.analyser import Analyser
from fhirpath_otel.errors import UsageError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.template import operator_names
from fhirpath_otel.own_sdk import EXIT_TIMEOUT_SECONDS, OwnSdk
from fhirpath_otel.sampling.own_policies import own_policies
from fhirpath_otel.sampling.policies import Policy, Reasons, TailSampler
from fhirpath_otel.telemetry.governor import Governor
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.redaction import Disclosure
from fhirpath_otel.telemetry.span_counts import SpanCounts

if TYPE_CHECKING:
    from pathlib import Path

    from fhirpath_otel.telemetry.export_cost import ExportCost

_OURS = tuple(f"{item.name.partition('.')[0]}." for item in (semconv.STAGE, semconv.DB_SYSTEM_NAME))

_logger = logging.getLogger("fhirpath_otel")


_lock = threading.RLock()
_recorder: Recorder | None = None


def configure(*, local_traces: bool | None = None) -> None:
    """Sets up traces and metrics from the `OTEL_*` variables; not needed under `opentelemetry-instrument`.

    `local_traces` says whether traces are also written to files on this machine; by default they are if
    the setting TRACES_DIRECTORY names a place. A provider that the host has set is left alone and used; only
    `local_traces=True` adds to it. What cannot be set up costs one warning each, and never an exception.
    May be called again: what is there already stays.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    with _lock:
        try:
            _sdk.set_up(local_traces)
            span_counts().catch_up()
        except Exception as error:  # noqa: BLE001 -- telemetry never stops its host
            _logger.warning(
                "telemetry could not be set up (%s); evaluations are not affected", type(error).__name__
            )


def recorder() -> Recorder:
    """This process's recorder, made at the first call with the policies and limits of the settings."""
    global _recorder  # noqa: PLW0603 -- one recorder per process is the point
    if _recorder is not None:
        return _recorder
    with _lock:
        if _recorder is None:
            values = settings.current()
            governor = Governor(values.overhead_budget, values.detail, export_cost=_sdk.export_cost)
            reasons, analyser = Reasons(values, own=installed_policies()), Analyser()
            _recorder = Recorder(
                TailSampler(reasons.policies, values.max_traces_per_second, affords=governor.affords_trace),
                analyse=analyser,
                may_find=analyser.may_find,
                ordinary=None if reasons.judges_all else reasons,
                governor=governor,
                dimensions=_names(values.dimensions),
                disclosure=Disclosure(values.capture_expression, _is_resource_type, _is_operator),
                max_expressions=values.max_expressions,
                version=package_version(),
                meter_provider=_sdk.meter_provider,
            )
        return _recorder


@functools.cache
def span_counts() -> SpanCounts:
    """Counts into the recorder's series what happens outside of it."""
    meter = metrics.get_meter(semconv.SCOPE, package_version() or "", schema_url=semconv.SCHEMA_URL)
    return SpanCounts(meter)


@functools.cache
def installed_policies() -> tuple[Policy, ...]:
    """The sampling policies that installed packages offer, loaded once."""
    return own_policies(span_counts().count)


def set_detail(detail: str) -> None:
    """How much is recorded of every evaluation from now on: `off`, `basic`, `stages` or `operators`.

    `auto` leaves it to the overhead governor, for each expression. Raises UsageError for anything else.
    """
    allowed = (semconv.AUTO, *semconv.DETAILS)
    if detail not in allowed:
        raise UsageError(f"unknown detail {detail!r}; use one of {', '.join(allowed)}")
    recorder().set_detail(detail)


def trace_file() -> Path | None:
    """The file of this process's local traces; None where there is none, or nothing was written yet."""
    return None if _sdk.trace_file is None else _sdk.trace_file.path


def export_cost() -> ExportCost:
    """What exporting has cost this process so far."""
    return _sdk.export_cost


def flush(timeout: float | None = EXIT_TIMEOUT_SECONDS) -> bool:
    """Hands over everything that was recorded; for programs that are frozen or killed without an exit.

    Concerns what `configure` has set up, and the global providers of a host where they can be flushed. False if that
    took longer than `timeout` seconds, or failed; what was lost for good is counted. Never raises.
    """
    return _sdk.flush(EXIT_TIMEOUT_SECONDS if timeout is None else timeout)


def shutdown(timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
    """Flushes and ends what `configure` has set up; False if that took longer than `timeout` seconds, or failed.

    Runs by itself when the interpreter exits, and when a process of `multiprocessing` ends.
    """
    return _sdk.shutdown(timeout)


def _is_resource_type(name: str) -> bool:
    return name in load_model().resource_types


def _is_operator(name: str) -> bool:
    return name in operator_names(load_model())


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in (part.strip() for part in text.split(",")) if name)
    ours = tuple(name for name in names if name == semconv.ERROR_TYPE.name or name.startswith(_OURS))
    if ours:
        _logger.warning(
            "%sDIMENSIONS: %s are attributes of ours, and no dimensions", settings.PREFIX, ", ".join(ours)
        )
    return tuple(name for name in names if name not in ours)


def package_version() -> str | None:
    """The version of this package, if it is installed."""
    try:
        return version("fhirpath-otel")
    except PackageNotFoundError:
        return None


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 -- another thread may have held the parent's at the fork
    _lock = threading.RLock()


_sdk = OwnSdk(recorder)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
