"""docs/scale.md: what its configuration says is taken by the programs, as far as these have the components."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from fhirpath_otel import settings

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
JAEGER = [block for block in BLOCKS if "jaeger_storage" in block.get("extensions", {})]
KUBERNETES = [block for block in BLOCKS if "kind" in block or "metadata" in block]
COLLECTOR = [block for block in BLOCKS if block not in JAEGER + KUBERNETES]

NOT_BUILT_HERE = {"load_balancing", "kafka receiver"}
PLACES = {"kafka": "traces/in", "prometheus_remote_write": "metrics/applications"}
"""The pipelines of collector-config/otelcol.yaml that end in what the page puts there."""


def configuration(name):
    return yaml.safe_load((ROOT / "collector-config" / name).read_text(encoding="utf-8"))


def validated(program, made, folder):
    file = folder / "made.yaml"
    file.write_text(yaml.safe_dump(made), encoding="utf-8")
    return subprocess.run(
        [program, "validate", f"--config=file:{file}"],
        env=os.environ | {"CASSANDRA_PASSWORD": "x", "CLICKHOUSE_PASSWORD": "x"},
        capture_output=True,
        text=True,
        check=False,
    )


def combined(block):
    """The stack's configuration with the page's in it, and without what is not built here."""
    made = configuration("otelcol.yaml")
    pipelines = made["service"]["pipelines"]
    exporters = {
        name: value for name, value in block.get("exporters", {}).items() if name not in NOT_BUILT_HERE
    }
    made["exporters"] |= exporters
    for name in exporters:
        pipelines[PLACES[name]]["exporters"] = [*pipelines[PLACES[name]]["exporters"], name]
    for name, pipeline in block.get("service", {}).get("pipelines", {}).items():
        if name == "traces":
            for of_one_machine in [other for other in pipelines if other.startswith("traces/")]:
                del pipelines[of_one_machine]
        pipelines[name] = pipeline | {
            "exporters": [exporter for exporter in pipeline["exporters"] if exporter not in NOT_BUILT_HERE]
        }
    if not any("span_metrics" in pipeline["exporters"] for pipeline in pipelines.values()):
        del pipelines["metrics/spans"]
    return made


def test_every_block_is_of_one_of_the_programs():
    assert (len(COLLECTOR), len(JAEGER), len(KUBERNETES)) == (5, 3, 2)


@pytest.mark.parametrize("block", COLLECTOR, ids="-".join)
def test_the_collector_takes_it(stack_programs, block, tmp_path):
    made = validated(stack_programs["otelcol"], combined(block), tmp_path)
    assert made.returncode == 0, made.stderr
    assert "deprecated" not in made.stderr


def test_what_is_not_built_here_is_said(stack_programs):
    components = yaml.safe_load(subprocess.check_output([stack_programs["otelcol"], "components"]))
    named = {name for block in COLLECTOR for name in block.get("exporters", {})}
    named |= {f"{name} receiver" for block in COLLECTOR for name in block.get("receivers", {})}
    built = {one["name"] for one in components["exporters"]}
    built |= {f"{one['name']} receiver" for one in components["receivers"]}
    assert named - built <= NOT_BUILT_HERE <= named
    for name in NOT_BUILT_HERE:
        assert re.search(rf"(exporter|receiver)\s+`{name.removesuffix(' receiver')}`", PAGE)


@pytest.mark.parametrize("block", JAEGER, ids=lambda block: "-".join(_backend(block)))
def test_jaeger_takes_it(stack_programs, block, tmp_path):
    made = configuration("jaeger.yaml")
    made["extensions"]["jaeger_storage"]["backends"] = block["extensions"]["jaeger_storage"]["backends"]
    made["extensions"]["jaeger_query"]["storage"]["traces"] = "traces"
    made["exporters"]["jaeger_storage_exporter"]["trace_storage"] = "traces"
    checked = validated(stack_programs["jaeger"], made, tmp_path)
    assert checked.returncode == 0, checked.stderr


def _backend(block):
    return block["extensions"]["jaeger_storage"]["backends"]["traces"]


def test_settings_that_the_operator_passes_on_exist():
    names = [variable["name"] for variable in KUBERNETES[0]["spec"]["python"]["env"]]
    ours = {name.removeprefix(settings.PREFIX) for name in names if name.startswith(settings.PREFIX)}
    assert ours
    assert ours <= {setting.name for setting in settings.SETTINGS}
    assert "sampler" not in KUBERNETES[0]["spec"]
