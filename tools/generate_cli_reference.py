"""Writes docs/cli.md out of the commands themselves, so that it agrees with `--help`.

    python tools/generate_cli_reference.py            # write
    python tools/generate_cli_reference.py --check    # exit 1 if it is out of date

It is made of the commands' parameters and not of their help texts, which every version of click lays out its own way.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from fhirpath_otel.commands import COMMANDS

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

HEAD = """# Command line

`fhirpath-otel COMMAND --help` tells the same. `python -m fhirpath_otel` is the same program.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | it failed: data, a database, a file |
| 2 | wrong usage, or an expression that is wrong |
| 130 | interrupted (Ctrl-C) |
| 141 | nobody reads the output any more |

Every failure is one line on standard error; errors in an expression are also shown under its text.
What telemetry does is a matter of [settings](settings.md).
"""


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n{section}" for command in COMMANDS for section in _sections(command))


def _sections(command: click.Command) -> Iterator[str]:
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    usage = " ".join(["fhirpath-otel", command.name or "", *map(_metavar, arguments), "[OPTIONS]"])
    yield f"## {command.name}\n"
    yield f"```text\n{usage}\n```\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    options = [one for one in command.params if isinstance(one, click.Option)]
    rows = "".join(f"| {_names(option)} | {_meaning(option)} |\n" for option in options)
    yield f"| option | meaning |\n| --- | --- |\n{rows}"
    examples, _, note = (command.epilog or "").replace("\b\n", "").partition("\n\n")
    yield f"```sh\n{inspect.cleandoc(examples.partition(chr(10))[2])}\n```\n"
    if note:
        yield f"{note}\n"


def _metavar(argument: click.Argument) -> str:
    return argument.metavar or (argument.name or "").upper()


def _names(option: click.Option) -> str:
    if option.is_flag:
        value = ""
    elif isinstance(option.type, click.Choice):
        value = " " + r"\|".join(map(str, option.type.choices))
    else:
        value = " " + (option.metavar or option.type.name.split()[0].upper())
    return f"`{', '.join(option.opts)}{value}`"


def _meaning(option: click.Option) -> str:
    text = re.sub(r"\s+", " ", option.help or "")
    return f"{text} Default: `{option.default}`." if option.show_default else text


def main() -> int:
    """Write the page, or with --check compare it; gives the exit code."""
    text = reference()
    if "--check" in sys.argv[1:]:
        if REFERENCE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{REFERENCE} is out of date: python tools/generate_cli_reference.py", file=sys.stderr)
        return 1
    REFERENCE.write_text(text, encoding="utf-8")
    print(f"wrote {REFERENCE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
