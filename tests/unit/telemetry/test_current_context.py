"""The short way gives what the API gives, and the API is asked where there is none."""

from __future__ import annotations

from contextvars import ContextVar

import pytest
from opentelemetry import baggage
from opentelemetry import context as otel_context

from fhirpath_otel.telemetry.current_context import context_getter


def test_it_gives_the_current_context():
    get = context_getter()
    token = otel_context.attach(baggage.set_baggage("a", "b"))
    try:
        assert get() is otel_context.get_current()
        assert baggage.get_baggage("a", get()) == "b"
    finally:
        otel_context.detach(token)


def test_it_is_the_variable_s_own_method():
    assert isinstance(getattr(context_getter(), "__self__", None), ContextVar)


@pytest.mark.parametrize("runtime", [None, object()])
def test_where_the_api_is_made_otherwise_it_is_asked(monkeypatch, runtime):
    monkeypatch.setattr(otel_context, "_RUNTIME_CONTEXT", runtime)
    assert context_getter() is otel_context.get_current
