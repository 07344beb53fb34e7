"""How the programs are started, watched and ended; played by a small server where each would stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tools.stack import __main__ as command_line
from tools.stack import processes, running
from tools.stack.failures import DidNotStart, PortTaken, RunsAlready, StackFailure
from tools.stack.ports import free_ports, refuse_taken_ports
from tools.stack.running import Runner
from tools.stack.services import PORTS, SERVICES, Plan

ROOT = Path(__file__).resolve().parents[3]
# Plays any of the programs: answers every request with 200 on the port of its health check.
PROGRAM = f"""#!{sys.executable}
import http.server, os, pathlib, signal, sys
name = pathlib.Path(sys.argv[0]).name
variables = dict(otelcol="OTELCOL_HEALTH_PORT", jaeger="JAEGER_HEALTH_PORT")
port = int(os.environ[variables.get(name, name.upper() + "_PORT")])
print("environment:", sorted(os.environ), flush=True)
trouble = os.environ.get("TROUBLE_" + name, "")
if trouble == "ends":
    sys.exit("error: no such receiver")
if trouble == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if trouble == "ill" else 200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def programs(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    made = {name: folder / name for name in SERVICES}
    for file in made.values():
        file.write_text(PROGRAM)
        file.chmod(0o755)
    return made


@pytest.fixture
def configuration(tmp_path):
    folder = tmp_path / "collector-config"
    for name in ("prometheus", "alertmanager"):
        (folder / name).mkdir(parents=True)
    (folder / "prometheus" / "prometheus.yml").write_text("scrape_interval: 15s\n")
    (folder / "prometheus" / "targets").mkdir()
    (folder / "prometheus" / "targets" / "local.yml").write_text('["127.0.0.1:8889", "127.0.0.1:88890"]\n')
    (folder / "alertmanager" / "alertmanager.yml").write_text("url: http://127.0.0.1:5001/\n")
    return folder


@pytest.fixture
def plan(tmp_path, programs, configuration):
    """A function that makes a plan on free ports, with these variables besides."""

    def make(*, replaced=None, **variables):
        return Plan(
            tmp_path / "run", programs, free_ports() | variables, configuration, replaced=replaced or {}
        )

    return make


@pytest.fixture
def start(plan):
    """A function that starts a plan's programs; those that still run are ended after the test."""
    runners = []

    def run(patience=30, **variables):
        runner = Runner(plan(**variables), print, patience=patience)
        runners.append(runner)
        runner.start_all()
        return runner

    yield run
    for runner in runners:
        for name in SERVICES:
            runner.kill(name)
        runner.stop()


def alive(folder):
    return [one.name for one in processes.recorded(folder, SERVICES) if one.alive()]


def test_all_are_started_and_exactly_those_are_ended(start):
    runner = start()
    started = processes.recorded(runner.plan.folder, SERVICES)
    assert [one.name for one in started] == list(SERVICES)
    assert all(one.alive() and one.healthy() for one in started)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        assert processes.stop(runner.plan.folder, SERVICES, print) == list(SERVICES)
        assert bystander.poll() is None
        bystander.kill()
    assert not any(one.alive() for one in started)
    assert list(runner.plan.folder.glob("*.pid")) == []


def test_one_that_was_started_when_we_are_interrupted_is_ended_too(start, monkeypatch):
    record, pids = processes.record, {}

    def interrupted(folder, name, pid, *more):
        pids[name] = pid
        if name == "jaeger":
            raise KeyboardInterrupt
        record(folder, name, pid, *more)

    monkeypatch.setattr(processes, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert list(pids) == ["otelcol", "jaeger"]
    assert not any(processes.beginning(pid) for pid in pids.values())


def test_what_is_empty_counts_as_not_set(plan, monkeypatch):
    monkeypatch.setenv("SLOW_THRESHOLD_MS", "")
    made = plan(DECISION_WAIT="", OTELCOL_STORAGE="", STACK_LISTEN="")
    environment = made.services()["otelcol"].environment
    assert not {"SLOW_THRESHOLD_MS", "DECISION_WAIT", "STACK_LISTEN"} & set(environment)
    assert environment["OTELCOL_STORAGE"] == str(made.folder / "otelcol")


def test_what_is_kept_is_for_nobody_else_to_read(start):
    assert start().plan.folder.stat().st_mode & 0o077 == 0


def test_what_is_meant_for_applications_is_not_inherited(start, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://elsewhere.example")
    runner = start(OTEL_SERVICE_NAME="mine", SLOW_THRESHOLD_MS="50")
    for name in SERVICES:
        assert "'OTEL_" not in runner.log(name)
        assert "'SLOW_THRESHOLD_MS'" in runner.log(name)


def test_a_program_that_ends_is_told_with_its_last_words_and_the_others_are_ended(start, tmp_path):
    with pytest.raises(DidNotStart, match=r"(?s)jaeger ended when it was started.*error: no such receiver"):
        start(TROUBLE_jaeger="ends")
    assert alive(tmp_path / "run") == []


def test_a_program_that_never_answers_is_told(start, tmp_path):
    with pytest.raises(DidNotStart, match=r"otelcol does not answer at http://127\.0\.0\.1:\d+/ after 1 s"):
        start(patience=1, TROUBLE_otelcol="ill")
    assert alive(tmp_path / "run") == []


def test_a_program_that_cannot_be_run_is_told(start, programs, tmp_path):
    programs["prometheus"].chmod(0o644)
    with pytest.raises(DidNotStart, match=r"prometheus cannot be run: .*Permission denied"):
        start()
    assert alive(tmp_path / "run") == []


def test_a_program_that_does_not_end_when_asked_is_killed(start, capsys):
    runner = start(TROUBLE_otelcol="stubborn")
    ended = processes.stop(runner.plan.folder, SERVICES, print, patience=0.5)
    assert ended == list(SERVICES)
    assert capsys.readouterr().out.endswith("\notelcol has not ended after 0.5 s: it is killed\n")


def test_it_is_not_started_twice(start):
    runner = start()
    with pytest.raises(RunsAlready, match="otelcol, jaeger, prometheus, alertmanager"):
        Runner(runner.plan, print).start_all()
    assert alive(runner.plan.folder) == list(SERVICES)


def test_what_is_missing_is_started_and_the_others_are_left_alone(start, capsys):
    runner = start()
    before = {one.name: one.pid for one in processes.recorded(runner.plan.folder, SERVICES)}
    configured = runner.plan.folder / "configuration" / "prometheus" / "prometheus.yml"
    configured.write_text("what it was started with")
    runner.kill("jaeger")
    capsys.readouterr()
    runner.start_all()
    after = {one.name: one.pid for one in processes.recorded(runner.plan.folder, SERVICES)}
    assert [name for name in SERVICES if after[name] != before[name]] == ["jaeger"]
    assert alive(runner.plan.folder) == list(SERVICES)
    assert configured.read_text() == "what it was started with"
    assert "left alone, as they were started: otelcol, prometheus, alertmanager" in capsys.readouterr().out


def test_one_that_cannot_be_started_ends_none_that_run(start):
    runner = start()
    runner.kill("jaeger")
    again = Runner(replace(runner.plan, variables={**runner.plan.variables, "TROUBLE_jaeger": "ends"}), print)
    with pytest.raises(DidNotStart, match="jaeger ended when it was started"):
        again.start_all()
    assert alive(runner.plan.folder) == ["otelcol", "prometheus", "alertmanager"]


@pytest.mark.parametrize("name", ["PROMETHEUS_PORT", "JAEGER_OTLP_GRPC_PORT"])
def test_what_runs_with_other_ports_is_not_completed(start, name):
    runner = start()
    runner.kill("jaeger")
    moved = {**runner.plan.variables, name: free_ports()[name]}
    with pytest.raises(RunsAlready, match=rf"runs already with other addresses \({name}\): otelcol, "):
        Runner(replace(runner.plan, variables=moved), print).start_all()
    assert alive(runner.plan.folder) == ["otelcol", "prometheus", "alertmanager"]


def test_a_long_log_is_set_aside_at_the_start_and_one_older_is_kept(start, monkeypatch):
    monkeypatch.setattr(running, "LOG_BYTES", 5)
    runner = start()
    logs = runner.plan.folder / "logs"
    for said in ("first run", "second run"):
        (logs / "otelcol.log").write_text(said)
        runner.kill("otelcol")
        runner.start("otelcol")
        assert said not in runner.log("otelcol")
        assert (logs / "otelcol.log.1").read_text() == said
    assert sorted(file.name for file in logs.glob("otelcol*")) == ["otelcol.log", "otelcol.log.1"]


def test_a_log_may_be_emptied_while_its_program_runs(start):
    runner = start()
    log = runner.plan.folder / "logs" / "jaeger.log"
    log.write_text("")
    assert processes.recorded(runner.plan.folder, ["jaeger"])[0].healthy()
    assert "GET /status" in log.read_text()
    assert "\0" not in log.read_text()


@pytest.mark.parametrize(
    ("given", "collected"), [({}, "320MiB"), ({"OTELCOL_MEMORY_LIMIT_MIB": "700"}, "560MiB")]
)
def test_garbage_goes_before_the_collector_refuses(given, collected, plan, monkeypatch):
    monkeypatch.delenv("GOMEMLIMIT", raising=False)
    assert plan(**given).services()["otelcol"].environment["GOMEMLIMIT"] == collected
    assert plan(GOMEMLIMIT="1GiB", **given).services()["otelcol"].environment["GOMEMLIMIT"] == "1GiB"
    assert "GOMEMLIMIT" not in plan(**given).services()["prometheus"].environment


def test_one_is_killed_and_started_with_another_variable(start):
    runner = start()
    runner.kill("otelcol")
    assert alive(runner.plan.folder) == ["jaeger", "prometheus", "alertmanager"]
    runner.start("otelcol", DECISION_WAIT="1s")
    assert alive(runner.plan.folder) == list(SERVICES)
    before, after = runner.log("otelcol").split("\n--- ")
    assert "DECISION_WAIT" not in before
    assert "DECISION_WAIT" in after


def test_a_number_that_another_process_got_since_is_left_alone(tmp_path):
    mine = os.getpid()
    (tmp_path / "otelcol.pid").write_text(json.dumps({"pid": mine, "began": "another boot 1", "health": ""}))
    assert processes.stop(tmp_path, SERVICES, print) == []
    assert list(tmp_path.glob("*.pid")) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "began": "", "health": ""}'])
def test_a_pid_file_that_says_nothing_names_no_process(text, tmp_path):
    (tmp_path / "otelcol.pid").write_text(text)
    assert processes.recorded(tmp_path, SERVICES) == []


def test_a_process_has_one_beginning_until_it_has_ended():
    mine = processes.beginning(os.getpid())
    assert mine == processes.beginning(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert processes.beginning(other.pid) not in {"", mine}
        other.kill()
        # Nobody has waited for it yet, so its number is still taken.
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert processes.beginning(other.pid) == ""
    assert processes.beginning(other.pid) == ""


@pytest.mark.skipif(not shutil.which("ps"), reason="no ps here")
def test_where_there_is_no_proc_ps_tells_the_beginning():
    mine = processes._beginning_by_ps(os.getpid())
    assert mine
    assert mine == processes._beginning_by_ps(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert processes._beginning_by_ps(other.pid) == ""
    assert processes._beginning_by_ps(other.pid) == ""


def test_a_port_that_is_taken_is_told_with_its_variable_before_anything_starts(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"{port} \(jaeger, pages and API\).*JAEGER_QUERY_PORT=\d+"):
            start(JAEGER_QUERY_PORT=str(port))
    assert list(tmp_path.glob("run/*.pid")) == []


def test_a_port_that_was_given_twice_is_told(plan):
    twice = free_ports()["OTLP_GRPC_PORT"]
    with pytest.raises(PortTaken, match=f"{twice}: OTLP_GRPC_PORT and OTLP_HTTP_PORT are the same"):
        refuse_taken_ports(plan(OTLP_GRPC_PORT=twice, OTLP_HTTP_PORT=twice))


@pytest.mark.parametrize("listen", ["203.0.113.1", "::1", "::"])
def test_an_address_that_nobody_here_can_listen_on_is_told(listen, plan):
    with pytest.raises(StackFailure, match=rf"STACK_LISTEN={listen} is no address to listen on.*IPv4"):
        refuse_taken_ports(plan(STACK_LISTEN=listen))


@pytest.mark.parametrize(("listen", "reached"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")])  # noqa: S104
def test_programs_are_reached_where_they_listen(listen, reached, plan):
    made = plan(STACK_LISTEN=listen)
    services = made.services()
    assert services["otelcol"].health.startswith(f"http://{reached}:")
    assert services["otelcol"].environment["JAEGER_OTLP_ENDPOINT"].startswith(f"{reached}:")
    assert services["prometheus"].health.startswith("http://127.0.0.1:")
    made.write_configuration()
    targets = made.folder / "configuration" / "prometheus" / "targets" / "local.yml"
    assert f"{reached}:{made.port('OTELCOL_METRICS_PORT')}" in targets.read_text()


@pytest.mark.parametrize(("name", "value"), [("DECISION_WAIT", "5"), ("OTLP_GRPC_PORT", " ")])
def test_a_wrong_value_is_told_before_programs_are_got(name, value, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line.programs, "get_all", lambda say: pytest.fail("they were got"))
    monkeypatch.setenv(name, value)
    assert command_line.main(["start", "--folder", str(tmp_path / "run")]) == 2
    assert re.search(rf"{name}={shlex.quote(value)}: needs ", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["x", "0", "65536", "-1", "4317.0", "٣"])
def test_what_is_no_port_is_refused(text, plan):
    with pytest.raises(StackFailure, match=r"OTLP_GRPC_PORT=.* is no port"):
        Plan(Path(), {}, {"OTLP_GRPC_PORT": text}).port("OTLP_GRPC_PORT")


def test_free_ports_are_different_ones():
    ports = free_ports()
    assert set(ports) == {port.variable for port in PORTS}
    assert len(set(ports.values())) == len(PORTS)


def test_the_configuration_has_the_addresses_and_texts_of_the_plan(plan, configuration):
    made = plan(replaced={"scrape_interval: 15s": "scrape_interval: 1s", "127.0.0.1:5001": "127.0.0.1:6001"})
    made.folder.mkdir()
    made.write_configuration()
    written = made.folder / "configuration"
    port = made.variables["OTELCOL_METRICS_PORT"]
    assert (
        written / "prometheus/targets/local.yml"
    ).read_text() == f'["127.0.0.1:{port}", "127.0.0.1:88890"]\n'
    assert (written / "prometheus/prometheus.yml").read_text() == "scrape_interval: 1s\n"
    assert (written / "alertmanager/alertmanager.yml").read_text() == "url: http://127.0.0.1:6001/\n"
    assert "15s" in (configuration / "prometheus" / "prometheus.yml").read_text()


def test_a_text_that_is_to_be_replaced_has_to_be_there(plan):
    made = plan(replaced={"scrape_interval: 99s": ""})
    with pytest.raises(StackFailure, match="says scrape_interval: 99s"):
        made.write_configuration()


def test_the_command_line_shows_and_ends_what_runs(start, capsys):
    folder = start().plan.folder
    assert command_line.main(["status", "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.count(" answers") == 4
    (jaeger,) = processes.recorded(folder, ["jaeger"])
    os.kill(jaeger.pid, signal.SIGKILL)
    while jaeger.alive():
        time.sleep(0.01)
    assert command_line.main(["status", "--folder", str(folder)]) == 9
    assert "has ended by itself" in capsys.readouterr().out
    assert command_line.main(["stop", "--folder", str(folder)]) == 0
    assert capsys.readouterr().out == "ended: otelcol, prometheus, alertmanager\n"
    assert command_line.main(["stop", "--folder", str(folder)]) == 0
    assert capsys.readouterr().out == f"nothing runs in {folder}\n"


@pytest.mark.parametrize("command", ["stop", "status"])
def test_whoever_reads_may_stop_reading(command, tmp_path):
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "tools.stack", command, "--folder", tmp_path],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_there_may_be_no_standard_output(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert command_line.main(["status", "--folder", str(tmp_path)]) == 9


@pytest.mark.parametrize("command", ["start", "stop", "status"])
def test_a_folder_that_cannot_be_one_is_told(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line.programs, "get_all", lambda say: {})
    (tmp_path / "file").touch()
    assert command_line.main([command, "--folder", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stack: ")
    assert f"--folder, now {tmp_path / 'file'}" in said


def test_an_overlay_that_is_not_there_is_told(tmp_path, capsys):
    missing = tmp_path / "overlay.yaml"
    assert command_line.main(["start", "--folder", str(tmp_path), "--overlay", str(missing)]) == 1
    assert f"there is no overlay {missing}" in capsys.readouterr().err
