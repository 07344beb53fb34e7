"""Prometheus' own tool reads the configuration, and runs the tests in rules/."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "collector-config" / "prometheus"
RULE_TESTS = sorted((Path(__file__).parent / "rules").glob("*.test.yml"))


pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def promtool(stack_programs):
    return stack_programs["promtool"]


def check(*command):
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_configuration_and_the_rules_it_names_are_valid(promtool):
    check(promtool, "check", "config", PROMETHEUS / "prometheus.yml")


def test_no_rule_is_there_twice(promtool):
    check(
        promtool,
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        *sorted((PROMETHEUS / "rules").glob("*.yml")),
    )


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.name)
def test_rules(promtool, file):
    check(promtool, "test", "rules", file)
