from __future__ import annotations

import dataclasses
import logging

import pytest

from fhirpath_otel import settings
from fhirpath_otel.settings import PREFIX, SETTINGS, Settings, load


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load({}) == Settings()
    assert load({PREFIX + "SLOW_THRESHOLD": " "}) == Settings()


def test_every_setting_has_an_attribute_a_default_of_its_type_and_help() -> None:
    assert [item.name.lower() for item in SETTINGS] == [item.name for item in dataclasses.fields(Settings)]
    for setting in SETTINGS:
        assert type(setting.default) is setting.type
        assert setting.help.endswith(".")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SLOW_THRESHOLD", "0.25", 0.25),
        ("SLOW_THRESHOLD", "2", 2.0),
        ("BASELINE_RATE", "1", 1.0),
        ("MAX_EXPRESSIONS", " 50 ", 50),
        ("CAPTURE_EXPRESSION", "FULL", "full"),
        ("TRACES_DIRECTORY", "/var/lib/traces", "/var/lib/traces"),
        ("JAEGER_URL", "http://localhost:16686", "http://localhost:16686"),
    ],
)
def test_values_are_read(name: str, text: str, expected: object) -> None:
    assert getattr(load({PREFIX + name: text}), name.lower()) == expected


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("SLOW_THRESHOLD", "fast", "a number of at least 0 (seconds)"),
        ("SLOW_THRESHOLD", "-1", "a number of at least 0 (seconds)"),
        ("SLOW_THRESHOLD", "nan", "a number of at least 0 (seconds)"),
        ("MAX_TRACES_PER_SECOND", "inf", "a number of at least 0"),
        ("BASELINE_RATE", "1.5", "a number from 0 to 1"),
        ("MAX_EXPRESSIONS", "1.5", "a whole number from 0 to 500"),
        ("CAPTURE_EXPRESSION", "everything", "one of template, hash, full"),
        ("JAEGER_URL", "localhost", "text that starts with http:// or https://"),
    ],
)
def test_a_bad_value_gives_one_warning_and_the_default(
    name: str, text: str, allowed: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fhirpath_otel"):
        loaded = load({PREFIX + name: text})
    assert loaded == Settings()
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{PREFIX}{name}={text!r} is not {allowed}; using ")


def test_a_bad_value_leaves_the_others_alone() -> None:
    loaded = load({PREFIX + "SLOW_THRESHOLD": "fast", PREFIX + "MAX_EXPRESSIONS": "7"})
    assert loaded == Settings(max_expressions=7)


def test_current_settings_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.current.cache_clear()
    monkeypatch.setenv(PREFIX + "SLOW_THRESHOLD", "3")
    try:
        assert settings.current().slow_threshold == 3.0
        monkeypatch.setenv(PREFIX + "SLOW_THRESHOLD", "4")
        assert settings.current().slow_threshold == 3.0
    finally:
        settings.current.cache_clear()
