"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """The folder with other projects' test data (official suites, Synthea), which is too large for this repository."""
    folder = Path(os.environ.get("FHIRPATH_OTEL_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(
            f"no test data at {folder}: set FHIRPATH_OTEL_TEST_DATA to the folder that holds fhirpath-r4/"
        )
    return folder
