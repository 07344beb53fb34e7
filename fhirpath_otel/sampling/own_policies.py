"""Policies of yours: objects that say of an evaluation that its trace is worth keeping, found by entry points.

They are asked after `forced` and `error`, each with a token bucket of its own. The object may also be a class or a
function without parameters, which is called once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from fhirpath_otel import semconv
from fhirpath_otel.sampling.policies import Policy

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.evaluation import Evaluation

GROUP = "fhirpath_otel_policies"
MOST = 8
"""Each has a series of its own in `fhirpath.telemetry.traces`."""

Lost = Callable[[str, str], None]

_TAKEN = (*semconv.REASONS, *(semconv.NOT_SELECTED, semconv.UNSAMPLED_PARENT), semconv.OTHER)
_REASON = re.compile(r"[a-z][a-z0-9_]{0,39}")
_logger = logging.getLogger("fhirpath_otel")


class OwnPolicy(Protocol):
    """A reason to keep traces.

    `reason` is 1 to 40 lower-case letters, digits and underscores; it is emitted, so it must hold no data. `matches` is
    asked about each evaluation that ends, by any thread, with its notes: it should be quick, and leave them as they
    are.
    """

    reason: str

    def matches(self, evaluation: Evaluation) -> bool:
        """Whether the evaluation's trace is worth keeping."""


def own_policies(lost: Lost, found: Iterable[Any] | None = None) -> tuple[Policy, ...]:
    """The policies that installed packages offer, in the order of their names.

    One that cannot be used costs a warning and is counted by `lost`; one that raises counts as not matching.
    """
    offered = entry_points(group=GROUP) if found is None else found
    loaded: list[Policy] = []
    taken = set(_TAKEN)
    for entry_point in sorted(offered, key=lambda item: str(item.name)):
        policy = _load_or_warn(entry_point, taken, lost)
        if policy is not None:
            taken.add(policy.reason)
            loaded.append(Policy(policy.reason, _Guarded(policy, lost).matches))
    return tuple(loaded)


class _Unfit(Exception):
    """Says what is wrong with a policy."""


def _load_or_warn(entry_point: Any, taken: set[str], lost: Lost) -> OwnPolicy | None:
    try:
        return _load(entry_point, taken)
    except Exception as error:  # noqa: BLE001 -- somebody else's package must not stop ours
        lost(semconv.WHAT_POLICY, semconv.NOT_LOADED)
        why = str(error) if isinstance(error, _Unfit) else type(error).__name__
        _logger.warning("the sampling policy %.100r is not used: %s", str(entry_point.name), why)
        return None


def _load(entry_point: Any, taken: set[str]) -> OwnPolicy:
    if len(taken) >= len(_TAKEN) + MOST:
        raise _Unfit(f"there are {MOST} already")
    policy = entry_point.load()
    if isinstance(policy, type) or not hasattr(policy, "matches"):
        policy = policy()
    if not callable(getattr(policy, "matches", None)):
        raise _Unfit("it has no method matches(evaluation)")
    reason = getattr(policy, "reason", None)
    if not isinstance(reason, str) or not _REASON.fullmatch(reason):
        raise _Unfit("its reason is not 1 to 40 lower-case letters, digits and underscores")
    if reason in taken:
        raise _Unfit("its reason is taken")
    checked: OwnPolicy = policy
    return checked


class _Guarded:
    """A policy that cannot do harm by raising."""

    def __init__(self, policy: OwnPolicy, lost: Lost) -> None:
        self._policy = policy
        self._lost = lost
        self._said = False
        self.reason = policy.reason

    def matches(self, evaluation: Evaluation) -> bool:
        """What the policy says; False where it raises."""
        try:
            return bool(self._policy.matches(evaluation))
        except Exception as error:  # noqa: BLE001 -- the message may quote data
            self._lost(semconv.WHAT_POLICY, semconv.INTERNAL_ERROR)
            if not self._said:
                self._said = True
                _logger.warning(
                    "the sampling policy %r failed (%s); it is skipped, further failures are only counted, in %s",
                    self.reason,
                    type(error).__name__,
                    semconv.LOST.name,
                )
            return False
