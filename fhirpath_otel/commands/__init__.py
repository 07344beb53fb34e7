"""The command line: one module a command, behind one list."""

from __future__ import annotations

from typing import Any

import click

from fhirpath_otel.commands.check import check
from fhirpath_otel.commands.demo import demo
from fhirpath_otel.commands.evaluate import evaluate
from fhirpath_otel.commands.load import load

COMMANDS = (demo, load, evaluate, check)

BROKEN_PIPE = 141
"""The exit code of a program that SIGPIPE ended."""


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            # click itself would make it exit code 1, as if something had failed.
            raise click.exceptions.Exit(BROKEN_PIPE) from None


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nStart here:\n  fhirpath-otel demo",
)
@click.version_option(package_name="fhirpath-otel")
@click.pass_context
def cli(context: click.Context) -> None:
    """FHIRPath over FHIR R4 data, and where its time goes, as OpenTelemetry traces and metrics."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in COMMANDS:
    cli.add_command(command)
