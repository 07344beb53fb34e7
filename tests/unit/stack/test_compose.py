"""docker-compose.yml: as its schema has it, with everything that it names, and closed as far as it can be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.stack import services

ROOT = Path(__file__).resolve().parents[3]
CONFIGURATION = ROOT / "collector-config"
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
DOCKERFILE = (CONFIGURATION / "image" / "Dockerfile").read_text(encoding="utf-8")

PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")
COMPOSE_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::[-+?][^}]*)?\}")
COLLECTOR_VARIABLE = re.compile(r"\$\{env:([A-Z_]+)")
SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY|AUTHORIZATION)", re.IGNORECASE)

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def image(service):
    return service.get("image") or service["build"]["args"]["IMAGE"]


def bind_mounts(service):
    return [volume.split(":") for volume in service["volumes"] if volume.startswith("./")]


def collector_variables(name):
    return set(COLLECTOR_VARIABLE.findall((CONFIGURATION / name).read_text(encoding="utf-8")))


def test_it_follows_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*command, ROOT / "docker-compose.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_has_the_programs_of_the_stack():
    assert set(SERVICES) == {"otelcol", "jaeger", "prometheus", "alertmanager", "grafana"}


@each_service
def test_everything_that_is_mounted_exists(service):
    for source, _, mode in bind_mounts(service):
        assert (ROOT / source).exists(), source
        assert mode == "ro"


@each_service
def test_named_volumes_are_declared(service):
    named = {volume.split(":")[0] for volume in service["volumes"]} - {
        source for source, *_ in bind_mounts(service)
    }
    assert len(named) == 1
    assert named <= set(COMPOSE["volumes"])


@each_service
def test_images_are_pinned(service):
    assert PINNED.fullmatch(image(service))
    assert "latest" not in image(service)


def test_images_that_are_built_upon_are_pinned():
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert all(base == "${IMAGE}" or PINNED.fullmatch(base) for base in bases), bases


@each_service
def test_ports_are_published_on_this_machine_only(service):
    for port in service["ports"]:
        address, _ = port.split(":", 1)
        assert address == "127.0.0.1"


@each_service
def test_nobody_is_root(service):
    user, _, _ = service["user"].partition(":")
    assert user.isdigit()
    assert int(user) > 0
    assert not service.get("privileged")
    assert "cap_add" not in service


def test_the_image_that_is_built_ends_as_a_user_that_owns_the_storage():
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)[-1] == "10001:10001"
    for service in SERVICES.values():
        if "build" in service:
            assert service["user"] == "10001:10001"
            storage = service["build"]["args"]["STORAGE"]
            assert any(volume.endswith(f":{storage}") for volume in service["volumes"])


@each_service
def test_containers_are_closed(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["pids_limit"]


@each_service
def test_memory_and_logs_are_bounded(service):
    assert re.search(r"\d+[mg]\}?$", service["mem_limit"])
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@each_service
def test_health_is_asked_without_a_shell(service):
    first, *command = service["healthcheck"]["test"]
    assert first == "CMD"
    assert command[0].endswith("wget")
    assert command[-1].startswith("http://127.0.0.1:")


@each_service
def test_no_secret_stands_in_it(service):
    for name, value in service.get("environment", {}).items():
        if SECRET.search(name) and value is not None:
            assert re.fullmatch(r"\$\{[A-Z_]+:(-|\+false)\}", value), name


def test_grafana_has_no_default_password():
    text = (CONFIGURATION / "grafana" / "grafana.ini").read_text(encoding="utf-8")
    settings = [line.replace(" ", "") for line in text.splitlines() if not line.startswith(";")]
    assert "disable_initial_admin_creation=true" in settings
    assert "disable_login_form=true" in settings
    assert "org_role=Viewer" in settings
    assert not any(line.startswith("admin_password") for line in settings)


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("otelcol.yaml", "otelcol"),
        ("otelcol-mtls.yaml", "otelcol"),
        ("otelcol-backend-tls.yaml", "otelcol"),
        ("jaeger.yaml", "jaeger"),
    ],
)
def test_what_a_configuration_reads_from_the_environment_can_be_set(name, service):
    """Within its container a program keeps its ports; where they are published, the variable names the port outside."""
    given = set(SERVICES[service]["environment"])
    ports = {variable for variable in collector_variables(name) if variable.endswith("_PORT")}
    assert collector_variables(name) - ports <= given
    assert not ports & given


def test_published_ports_can_be_moved():
    for service in SERVICES.values():
        for port in service["ports"]:
            assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-(\d+)\}:\1", port), port


def test_the_example_of_variables_names_those_that_compose_reads():
    passed_through = {
        name
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE)) == {
        *COMPOSE_VARIABLE.findall(TEXT),
        *passed_through,
    }


def test_defaults_of_the_example_are_those_of_compose():
    example = dict(re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for name, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", TEXT):
        assert example[name] == default


def test_the_collectors_container_has_more_memory_than_its_limiter_allows():
    limit = int(re.search(r"OTELCOL_MEMORY_LIMIT_MIB:-(\d+)", TEXT)[1])
    container = int(re.search(r"OTELCOL_CONTAINER_MEMORY:-(\d+)m", TEXT)[1])
    assert container >= 1.5 * limit


def test_the_collector_collects_garbage_before_it_refuses():
    limit = int(re.search(r"OTELCOL_MEMORY_LIMIT_MIB:-(\d+)", TEXT)[1])
    assert (
        SERVICES["otelcol"]["environment"]["GOMEMLIMIT"] == f"${{OTELCOL_GOMEMLIMIT:-{limit * 80 // 100}MiB}}"
    )
    assert limit == services.MEMORY_LIMIT_MIB
