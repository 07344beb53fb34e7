"""What tests of the stack wait for ends, and what they lack is told: none of it needs a program."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.stack import collector
from tests.stack.application import Application
from tests.stack.clients import eventually
from tests.stack.collector import Collector


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


@pytest.mark.parametrize("does", ["sys.exit('no such receiver')", "time.sleep(600)"])
def test_a_collector_that_does_not_get_ready_is_told_and_ended(does, tmp_path, monkeypatch):
    program = tmp_path / "otelcol"
    program.write_text(f"#!{sys.executable}\nimport sys, time\nprint('begins', flush=True)\n{does}\n")
    program.chmod(0o755)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *given, **more: started.append(popen(*given, **more)) or started[0]
    )
    monkeypatch.setattr(collector, "eventually", lambda look: eventually(look, patience=0.5))
    told = "no such receiver" if "exit" in does else "did not come about within 0.5 s"
    with pytest.raises(pytest.fail.Exception, match=told):
        Collector(program, tmp_path / "run", SimpleNamespace(port=1))
    assert started[0].returncode is not None
