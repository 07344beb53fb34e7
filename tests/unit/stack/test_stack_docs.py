"""docs/stack.md tells of every variable and every version, and tells them right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tools.stack import variables

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "stack.md").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES = yaml.safe_load(COMPOSE)["services"]
ROWS = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|([^|]*)\|", PAGE, re.MULTILINE)


def documented():
    """The default of each variable as the tables tell it."""
    defaults = {}
    for names, told in ROWS:
        variables = re.findall(r"`([A-Z_]+)`", names)
        values = told.strip().strip("`").split(", ") if len(variables) > 1 else [told.strip().strip("`")]
        values += [values[-1]] * (len(variables) - len(values))
        defaults.update(zip(variables, values, strict=True))
    return defaults


def collector_defaults():
    for path in sorted((ROOT / "collector-config").glob("*.yaml")):
        yield from re.findall(r"\$\{env:([A-Z_]+)(?::-([^}]*))?\}", path.read_text(encoding="utf-8"))


def compose_defaults():
    return re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", COMPOSE)


def test_every_variable_of_the_configuration_is_told_with_its_default():
    told = documented()
    assert {name: told.get(name) for name, _ in collector_defaults()} == dict(collector_defaults())


def test_every_variable_of_compose_is_told():
    assert {name for name, _ in compose_defaults()} <= set(documented())


def test_defaults_of_compose_are_told_where_they_are_its_own():
    of_the_configuration = {name for name, _ in collector_defaults()}
    told = documented()
    for name, default in compose_defaults():
        if name not in of_the_configuration:
            assert told[name] == default, name


@pytest.mark.parametrize("name", SERVICES)
def test_versions_are_those_of_the_images(name):
    service = SERVICES[name]
    image = service.get("image") or service["build"]["args"]["IMAGE"]
    version = image.rpartition(":")[2].removeprefix("v")
    title = {"otelcol": r"OpenTelemetry Collector \(contrib\)"}.get(name, name.capitalize())
    assert re.search(rf"^\| {title} \| {re.escape(version)} \|", PAGE, re.MULTILINE)


def test_versions_of_images_that_are_built_upon_are_told():
    dockerfile = (ROOT / "collector-config" / "image" / "Dockerfile").read_text(encoding="utf-8")
    for name, version in re.findall(r"^FROM \S+/([a-z]+):([0-9.]+)", dockerfile, re.MULTILINE):
        assert re.search(rf"^\| {name}[^|]*\| {re.escape(version)} \|", PAGE, re.MULTILINE)


def test_images_of_the_docs_are_named_with_their_registry():
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for image in re.findall(r"^ *FROM (\S+)", text, re.MULTILINE):
        assert "." in image.partition("/")[0], image


def test_every_variable_that_is_checked_before_the_start_is_told():
    assert {*variables.FORMS, *variables.OVERLAY_FORMS} <= set(documented())


@pytest.mark.parametrize("page", ["README.md", "docs/stack.md", "docs/scale.md", "docs/runbooks.md"])
def test_what_is_said_of_make_exists(page):
    targets = set(
        re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```sh\n.*?```|`[^`\n]+`", text, re.DOTALL))
    said = {
        target for goals in re.findall(r"\bmake((?: [a-z][a-z0-9-]+)+)", blocks) for target in goals.split()
    }
    assert said <= targets


def test_every_overlay_is_told():
    for overlay in (ROOT / "collector-config").glob("otelcol-*.yaml"):
        assert f"OVERLAYS=collector-config/{overlay.name}" in PAGE


def test_what_was_not_run_is_said():
    assert PAGE.count("**Not started**") == 1
    assert "**Nothing on this page was run**" in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_configuration_in_the_docs_is_yaml():
    for page in ("stack.md", "scale.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for block in re.findall(r"^ *```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            assert yaml.compose(block.replace("!override ", ""))
