"""The quickest way to the caller's context: it saves two calls of functions, which take 1 µs where caches are cold."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context

if TYPE_CHECKING:
    from opentelemetry.context import Context


def context_getter() -> Callable[[], Context]:
    """The `get` of the variable in which the API keeps the context, if it is one; the API's own function otherwise."""
    runtime = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    return variable.get if isinstance(variable, ContextVar) else otel_context.get_current
