"""What tests of the stack wait for ends, and what they lack is told: none of it needs a program."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.stack.application import Application


def test_an_application_that_never_answers_is_ended():
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        with pytest.raises(AssertionError, match="''"):
            Application(process, patience=0.2).evaluate("Patient.name")
        assert process.wait(10) < 0


def test_what_is_absent_skips_unless_everything_is_demanded(absent, monkeypatch):
    monkeypatch.delenv("FHIRPATH_OTEL_STACK", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no openssl"):
        absent("no openssl")
    monkeypatch.setenv("FHIRPATH_OTEL_STACK", "1")
    with pytest.raises(pytest.fail.Exception, match=r"no openssl \(FHIRPATH_OTEL_STACK=1 demands it\)"):
        absent("no openssl")
