"""How the stack's programs are found and got; with commands that only play `go`, `apt-get` and the programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tools.stack import __main__ as command_line
from tools.stack import go_builds, programs
from tools.stack.cache import cache_folder
from tools.stack.debian import DebianPackage
from tools.stack.failures import BuildFailed, ToolMissing, Unreachable

ROOT = Path(__file__).resolve().parents[3]
OTELCOL, JAEGER, PROMETHEUS, PROMTOOL, ALERTMANAGER = programs.PROGRAMS

# Plays `go`: what it builds is a program that tells a version. $GO_TROUBLE has it fail while it downloads or compiles.
GO = """
    case "$1 $2" in
    "env GOVERSION") echo "${GO_VERSION:-go1.26.0}"; echo "${GOTOOLCHAIN:-auto}" ;;
    "env GOPROXY") echo https://modules.example ;;
    "get "*) [ -z "$GET_TROUBLE" ] || { echo "$GET_TROUBLE" >&2; exit 1; } ;;
    "install "*)
        mkdir -p "$GOBIN"
        printf '#!/bin/sh\\nmkdir source\\n' > "$GOBIN/builder"
        chmod +x "$GOBIN/builder" ;;
    "build "*)
        echo "built $GOTOOLCHAIN" >> "$GO_DIARY"
        [ -z "$BUILD_TROUBLE" ] || { eval "$BUILD_TROUBLE"; }
        while [ "$1" != -o ]; do shift; done
        printf '#!/bin/sh\\necho version 0.155.0\\n' > "$2"
        chmod +x "$2" ;;
    esac
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A function that puts a command on the PATH, where there is nothing else of what the stack needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "mkdir", "chmod", "cat", "sleep"):
        (folder / name).symlink_to(next(filter(os.path.exists, (f"/bin/{name}", f"/usr/bin/{name}"))))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("GO_DIARY", str(tmp_path / "diary"))

    def put(name, script):
        file = folder / name
        file.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        file.chmod(0o755)
        return file

    return put


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def said():
    return []


def builds(tmp_path):
    return (tmp_path / "diary").read_text().count("built")


def test_the_cache_is_where_xdg_says():
    assert cache_folder({"XDG_CACHE_HOME": "/caches"}) == Path("/caches/fhirpath-otel/stack")
    assert cache_folder({}) == Path.home() / ".cache" / "fhirpath-otel" / "stack"
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == cache_folder({})


def test_the_manifest_is_of_one_version():
    modules = go_builds.manifest_modules(go_builds.MANIFEST.read_text(encoding="utf-8"))
    versions = {module: version for module, version in modules if "/confmap/provider/" not in module}
    assert len(versions) > 10
    assert set(versions.values()) == {f"v{go_builds.COLLECTOR_VERSION}"}


def test_containers_run_the_same_versions():
    composed = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert f"/opentelemetry-collector-contrib:{go_builds.COLLECTOR_VERSION}\n" in composed
    assert f"/jaeger:{go_builds.JAEGER_VERSION}\n" in composed


@pytest.mark.parametrize("program", [OTELCOL, JAEGER], ids=lambda program: program.name)
def test_a_program_is_built_once(program, path, cache, said, tmp_path):
    go = path("go", GO)
    assert program.find(cache, said.append) is None
    found = program.get(cache, said.append)
    assert found.path.parent.parent == cache
    assert (found.version, found.ours) == ("0.155.0", True)
    assert "  compiling" in said
    go.unlink()
    assert program.get(cache, said.append) == found
    assert builds(tmp_path) == 1


def test_progress_says_what_is_built_how_long_it_takes_and_where_it_logs(path, cache, said):
    path("go", GO)
    JAEGER.get(cache, said.append)
    assert said[0].startswith("jaeger 2.13.0: building with ")
    assert "minutes" in said[0]
    log = Path(said[0].rpartition("log: ")[2])
    assert "mod init" in log.read_text(encoding="utf-8")


def test_without_go_it_says_what_to_install(path, cache, said):
    with pytest.raises(ToolMissing, match=r"install Go 1\.25 or newer from https://go\.dev"):
        JAEGER.get(cache, said.append)


@pytest.mark.parametrize(("version", "toolchain"), [("1.19.8", "auto"), ("1.24.4", "local")])
def test_a_go_that_is_too_old_is_not_tried(version, toolchain, path, cache, said, monkeypatch):
    path("go", GO)
    monkeypatch.setenv("GO_VERSION", f"go{version}")
    monkeypatch.setenv("GOTOOLCHAIN", toolchain)
    with pytest.raises(ToolMissing, match=rf"is Go {version}, and 1\.25 or newer"):
        JAEGER.get(cache, said.append)


def test_an_older_go_that_can_is_told_to_get_a_newer_one(path, cache, said, monkeypatch, tmp_path):
    path("go", GO)
    monkeypatch.setenv("GO_VERSION", "go1.22.2")
    JAEGER.get(cache, said.append)
    assert (tmp_path / "diary").read_text() == "built go1.25.0+auto\n"


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (
            "dial tcp: lookup modules.example: no such host",
            "could not be downloaded from https://modules.example",
        ),
        (
            "reading https://modules.example/x/@v/v1.mod: 404 Not Found",
            "is not served by https://modules.example",
        ),
    ],
)
def test_modules_that_cannot_be_downloaded_are_told_with_the_end_of_the_log(
    trouble, told, path, cache, said, monkeypatch
):
    path("go", GO)
    monkeypatch.setenv("GET_TROUBLE", trouble)
    with pytest.raises(Unreachable) as failure:
        JAEGER.get(cache, said.append)
    assert told in str(failure.value)
    assert f"  | {trouble}" in str(failure.value)


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(path, cache, said, monkeypatch):
    path("go", GO)
    monkeypatch.setenv("BUILD_TROUBLE", "echo 'undefined: frobnicate'; exit 1")
    with pytest.raises(BuildFailed, match="undefined: frobnicate"):
        JAEGER.get(cache, said.append)
    assert [entry.name for entry in cache.iterdir() if entry.is_dir()] == []
    monkeypatch.delenv("BUILD_TROUBLE")
    assert JAEGER.get(cache, said.append).path.is_file()


def test_a_built_program_that_does_not_run_is_not_kept(path, cache, said, monkeypatch):
    path("go", GO.replace("echo version 0.155.0", "exit 1"))
    with pytest.raises(BuildFailed, match=r"\./jaeger version"):
        JAEGER.get(cache, said.append)
    assert JAEGER.find(cache, said.append) is None


def getting():
    """Another process that gets the programs."""
    script = "from tools.stack.programs import PROGRAMS; from tools.stack.cache import cache_folder;"
    return subprocess.Popen(
        [sys.executable, "-c", f"{script} print(PROGRAMS[1].get(cache_folder(), lambda text: None).path)"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until_it_compiles(process, tmp_path):
    while not (tmp_path / "diary").exists():
        assert process.poll() is None
        time.sleep(0.05)


def test_a_build_that_was_killed_halfway_leaves_nothing_that_looks_whole(
    path, cache, said, tmp_path, monkeypatch
):
    path("go", GO)
    monkeypatch.setenv("BUILD_TROUBLE", f"while [ ! -e {tmp_path}/go-on ]; do sleep 0.1; done")
    with getting() as killed:
        wait_until_it_compiles(killed, tmp_path)
        killed.send_signal(signal.SIGKILL)
    (tmp_path / "go-on").touch()
    assert JAEGER.find(cache, said.append) is None
    assert JAEGER.get(cache, said.append).path.is_file()
    assert [entry.name for entry in cache.iterdir() if entry.is_dir()] == [go_builds.JAEGER.folder_name]


def test_two_at_once_build_once(path, cache, tmp_path, monkeypatch):
    path("go", GO)
    monkeypatch.setenv("BUILD_TROUBLE", f"while [ ! -e {tmp_path}/go-on ]; do sleep 0.1; done")
    with getting() as one, getting() as other:
        wait_until_it_compiles(one, tmp_path)
        (tmp_path / "go-on").touch()
        paths = {one.communicate()[0], other.communicate()[0]}
    assert len(paths) == 1
    assert builds(tmp_path) == 1


def test_what_is_on_the_path_is_used(path, cache, said):
    there = path("jaeger", 'echo \'{"gitVersion":"v2.13.0"}\'')
    assert JAEGER.get(cache, said.append) == programs.Found(there, "2.13.0", ours=False)
    assert said == []


def test_another_version_is_used_and_said(path, cache, said):
    path("jaeger", "echo v2.20.1")
    assert JAEGER.get(cache, said.append).version == "2.20.1"
    (note,) = said
    assert "version is 2.20.1; the configuration was run with 2.13.0" in note
    assert "FHIRPATH_OTEL_STACK_PROGRAMS=ours" in note


def test_ours_can_be_forced(path, cache, said):
    path("go", GO)
    path("jaeger", "echo v2.20.1")
    assert JAEGER.get(cache, said.append, path=False).ours


def test_a_command_that_does_not_run_is_no_program(path, cache, said):
    path("promtool", "exit 3")
    assert PROMTOOL.find(cache, said.append) is None
    assert "does not run" in said[0]


def test_a_collector_without_our_components_is_no_collector(path, cache, said):
    modules = [
        module for module, _ in go_builds.manifest_modules(go_builds.MANIFEST.read_text(encoding="utf-8"))
    ]
    listed = "".join(f"  module: {module} v0.155.0\n" for module in modules if "tailsampling" not in module)
    path("otelcol", f"[ $1 = --version ] && echo 0.155.0 && exit\ncat <<END\n{listed}END\n")
    assert OTELCOL.find(cache, said.append) is None
    assert said[0].endswith("is not used: it lacks tailsamplingprocessor")


def test_debians_name_of_alertmanager_is_known(path, cache, said):
    there = path("prometheus-alertmanager", "echo 'alertmanager, version 0.25.0 (branch: debian/sid)'")
    assert ALERTMANAGER.find(cache, said.append) == programs.Found(there, "0.25.0", ours=False)


@pytest.fixture
def debian(path, tmp_path, monkeypatch):
    (tmp_path / "lists").write_text("Packages\n")
    monkeypatch.setenv("APT_LISTS", str(tmp_path / "lists"))
    path(
        "apt-get",
        """
        file=prometheus_2.42.0+ds-5_amd64.deb
        [ -z "$APT_TROUBLE" ] || { echo "$APT_TROUBLE"; exit 100; }
        case "$1" in
        indextargets) cat "$APT_LISTS" ;;
        update) echo Packages > "$APT_LISTS" ;;
        --print-uris) echo "'https://debian.example/$file' $file 1 SHA256:0" ;;
        download) echo > "$file" ;;
        esac
        """,
    )
    path(
        "dpkg-deb",
        """
        mkdir -p usr/bin
        for name in prometheus promtool; do
            printf '#!/bin/sh\\necho version 2.42.0\\n' > usr/bin/$name
            chmod +x usr/bin/$name
        done
        """,
    )
    return path


def test_debians_package_is_unpacked_without_being_installed(debian, cache, said):
    found = PROMETHEUS.get(cache, said.append)
    assert found == programs.Found(
        cache / "prometheus-debian-2.42.0+ds-5/usr/bin/prometheus", "2.42.0", ours=True
    )
    assert [entry.name for entry in found.path.parents[2].iterdir()] == ["usr"]
    assert PROMTOOL.find(cache, said.append).path == found.path.with_name("promtool")


def test_a_package_that_cannot_be_downloaded_is_told(debian, cache, said, monkeypatch):
    monkeypatch.setenv("APT_TROUBLE", "E: Unable to locate package prometheus")
    with pytest.raises(Unreachable, match=r"(?s)apt-get update.*Unable to locate package"):
        PROMETHEUS.get(cache, said.append)


def test_root_gets_the_lists_of_packages_where_there_are_none(debian, cache, said, tmp_path, monkeypatch):
    (tmp_path / "lists").write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unreachable, match=r"no lists of packages.*only root.*`apt-get update` as root"):
        PROMETHEUS.get(cache, said.append)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert PROMETHEUS.get(cache, said.append).path.is_file()
    assert said[0].endswith("getting them (apt-get update)")


def test_a_package_without_the_program_is_not_kept(debian, cache, said):
    with pytest.raises(BuildFailed, match=r"has no usr/bin/missing"):
        DebianPackage("prometheus", "usr/bin/missing").get(cache, said.append)
    assert PROMETHEUS.find(cache, said.append) is None


def test_without_apt_it_says_where_the_programs_are(path, cache, said):
    with pytest.raises(ToolMissing, match=r"promtool is not on the PATH.*https://prometheus\.io/download/"):
        PROMTOOL.get(cache, said.append)


def test_the_command_line_prints_paths(path, cache, capsys):
    there = {name: path(name, "echo 1.2.3") for name in ("jaeger", "prometheus", "promtool", "alertmanager")}
    path("go", GO)
    assert command_line.main(["programs", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: Path(printed[name]) for name in there} == there
    assert Path(printed["otelcol"]).parents[1] == cache


def test_everything_that_cannot_be_had_is_told_at_once(debian, cache, said, monkeypatch):
    with pytest.raises(
        ToolMissing, match=r"(?s)^Go is not installed.*package prometheus-alertmanager"
    ) as told:
        programs.get_all(said.append)
    assert str(told.value).count("Go is not installed") == 1
    assert PROMETHEUS.find(cache, said.append)


def test_the_command_line_tells_scripts_what_is_wrong(path, cache, capsys):
    assert command_line.main(["programs"]) == ToolMissing.exit_code == 3
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith("stack: Go is not installed")
