"""Standard output and standard error for people: colours and widths on a terminal, plain text elsewhere.

rich knows about terminals, `NO_COLOR`, `TERM=dumb` and cell widths; nothing printed here is read as its markup.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.text import Text


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Called while the error is handled: rich itself would exit with 1, as if something had failed."""
        raise  # noqa: PLE0704, the BrokenPipeError that rich has just caught


@functools.cache
def output() -> Console:
    """Standard output."""
    return _Console(markup=False, highlight=False, emoji=False)


@functools.cache
def error_output() -> Console:
    """Standard error."""
    return _Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(line: str | Text, console: Console) -> None:
    """One line: cut at the terminal's edge, whole where there is no terminal."""
    if console.is_terminal:
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    else:
        console.print(line, soft_wrap=True)
