"""The stack without Docker: gets the real programs, starts them from a folder, shows them, ends them.

Usage: python -m tools.stack programs|start|stop|status (`make stack-programs`, `stack`, `stack-stop`, `stack-status`)

Exit codes: 0 done, 1 something else failed, 2 wrong usage or a wrong variable, 3 a tool is missing, 4 a download
failed, 5 a build failed, 6 a port is taken, 7 all of it runs already, 8 a program did not start; `status` has 9 where
not all of them answer.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tools.stack import processes, programs
from tools.stack.failures import StackFailure
from tools.stack.running import Runner
from tools.stack.services import SERVICES, Plan
from tools.stack.variables import refuse_wrong_values

FOLDER = Path(__file__).resolve().parents[2] / ".stack"
_NOT_ALL_ANSWER = 9


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says, and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.stack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("programs", help="get what is not there yet, and say where each program is")
    get.add_argument("--json", action="store_true", help="print the paths as a JSON object")
    get.add_argument(
        "--ours", action="store_true", help=f"leave the PATH alone ({programs.CHOICE}={programs.OURS})"
    )
    for name, what in (
        ("start", "start the programs that do not run, and wait until they answer"),
        ("stop", "end the programs that were started"),
        ("status", "say which programs run, and answer"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("--folder", type=Path, default=FOLDER, help="of the run: logs, data, pid files")
        if name == "start":
            command.add_argument(
                *("--overlay", "-o"),
                type=Path,
                action="append",
                default=[],
                help="a configuration file that the collector reads after its own",
            )
    chosen = parser.parse_args(arguments)
    # Otherwise a program that is being built would go on alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return do(chosen)
    except BrokenPipeError:
        # Who read it has seen enough (`| head -1`). Python would write once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        say(
            f"stack: {error.strerror or error}: {error.filename or 'no file'}. The run needs a folder to write to "
            f"(--folder, now {getattr(chosen, 'folder', FOLDER)}), programs one to be kept in (XDG_CACHE_HOME)"
        )
        return 1
    except StackFailure as failure:
        say(f"stack: {failure}")
        return failure.exit_code
    except KeyboardInterrupt:
        say("stack: interrupted")
        return 130


def do(chosen: argparse.Namespace) -> int:
    """Does what was chosen and has it printed; returns the exit code."""
    if chosen.command == "programs":
        code = show_programs(as_json=chosen.json, ours=chosen.ours)
    elif chosen.command == "start":
        code = start(chosen.folder.resolve(), [overlay.resolve() for overlay in chosen.overlay])
    else:
        code = {"stop": stop, "status": status}[chosen.command](chosen.folder.resolve())
    # There is none where it was closed.
    print(end="", flush=True)
    return code


def say(text: str) -> None:
    """Progress and trouble, on standard error: standard output is for what was asked for."""
    # What was begun goes on where nobody listens any more.
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def show_programs(*, as_json: bool, ours: bool) -> int:
    """Gets every program and prints where it is."""
    environ = os.environ | ({programs.CHOICE: programs.OURS} if ours else {})
    found = programs.get_all(say, environ)
    if as_json:
        print(json.dumps({name: str(program.path) for name, program in found.items()}, indent=1))
        return 0
    for name, program in found.items():
        print(f"{name:<13} {program.version or '?':<9} {program.path}")
    return 0


def start(folder: Path, overlays: Sequence[Path]) -> int:
    """Starts the stack in the folder and prints where what is.

    What is wrong with the variables is told first: getting the programs may take minutes.
    """
    refuse_wrong_values(os.environ, with_overlays=bool(overlays))
    missing = [str(overlay) for overlay in overlays if not overlay.is_file()]
    if missing:
        raise StackFailure(f"there is no overlay {', '.join(missing)}")
    found = programs.get_all(say)
    plan = Plan(
        folder, {name: program.path for name, program in found.items()}, os.environ, overlays=overlays
    )
    Runner(plan, say).start_all()
    grpc, web = plan.address("OTLP_GRPC_PORT"), plan.address("OTLP_HTTP_PORT")
    for what, where, note in (
        ("collector", f"http://{grpc}", f"OTLP over gRPC; over HTTP: http://{web}"),
        (
            "Jaeger",
            f"http://{plan.address('JAEGER_QUERY_PORT')}",
            "traces" + _pages(ours=found["jaeger"].ours),
        ),
        ("Prometheus", f"http://{plan.address('PROMETHEUS_PORT')}", "metrics, rules and alerts"),
        ("Alertmanager", f"http://{plan.address('ALERTMANAGER_PORT')}", "whom an alert went to"),
    ):
        print(f"{what:<13} {where:<24} {note}")
    print(f"{'logs':<13} {folder / 'logs'}; data beside them, kept until you delete {folder}")
    if overlays:
        print(f"\nThe collector also reads {', '.join(map(str, overlays))}; what applications need then,")
        print("docs/stack.md tells in its section on certificates")
    else:
        print("\nWhat an application needs:")
        print(f"export OTEL_SERVICE_NAME=my-service\nexport OTEL_EXPORTER_OTLP_ENDPOINT=http://{grpc}")
    return 0


def _pages(*, ours: bool) -> str:
    return "; its API only: the pages are not in Jaeger's Go module" if ours else ""


def stop(folder: Path) -> int:
    """Ends what was started in the folder, and nothing else."""
    ended = processes.stop(folder, SERVICES, say)
    print(f"ended: {', '.join(ended)}" if ended else f"nothing runs in {folder}")
    return 0


def status(folder: Path) -> int:
    """Prints of each program whether it runs and answers."""
    known = {running.name: running for running in processes.recorded(folder, SERVICES)}
    all_answer = True
    for name in SERVICES:
        running = known.get(name)
        if running is None:
            state = "not started"
        elif not running.alive():
            state = f"has ended by itself; see {folder / 'logs' / f'{name}.log'}"
        else:
            state = f"process {running.pid}, " + ("answers" if running.healthy() else "does not answer")
        all_answer &= state.endswith(" answers")
        print(f"{name:<13} {state:<50} {running.health if running else ''}".rstrip())
    return 0 if all_answer else _NOT_ALL_ANSWER


if __name__ == "__main__":
    sys.exit(main())
