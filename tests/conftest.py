"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEMANDED = "FHIRPATH_OTEL_STACK"


def pytest_configure():
    """Where a shell runs the tests in the background Ctrl-C is ignored, also in what they start; some send it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def absent():
    """Tells that something a test needs is not here: that skips the test, or fails it where everything is demanded."""

    def tell(what):
        if os.environ.get(DEMANDED) == "1":
            pytest.fail(f"{what} ({DEMANDED}=1 demands it)")
        pytest.skip(what)

    return tell


@pytest.fixture(scope="session")
def openssl(absent):
    """The command that certificates are made with."""
    return shutil.which("openssl") or absent(
        "the command openssl, which makes certificates, is not installed"
    )


@pytest.fixture(scope="session")
def shared_data():
    """The folder with other projects' test data (official suites, Synthea), which is too large for this repository."""
    folder = Path(os.environ.get("FHIRPATH_OTEL_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(
            f"no test data at {folder}: set FHIRPATH_OTEL_TEST_DATA to the folder that holds fhirpath-r4/"
        )
    return folder
