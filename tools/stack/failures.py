"""What can go wrong with the programs, each with the exit code that scripts tell it by."""

from __future__ import annotations


class StackFailure(Exception):
    """Something about the programs went wrong; the text is for people, `exit_code` for scripts."""

    exit_code = 1


class WrongVariable(StackFailure):
    """A variable has a value that its program cannot do anything with."""

    exit_code = 2


class ToolMissing(StackFailure):
    """Something that the programs are got with is not installed."""

    exit_code = 3


class Unreachable(StackFailure):
    """Modules or packages could not be downloaded."""

    exit_code = 4


class BuildFailed(StackFailure):
    """Everything was downloaded, and yet there is no program."""

    exit_code = 5


class PortTaken(StackFailure):
    """Somebody else listens where a program was to listen."""

    exit_code = 6


class RunsAlready(StackFailure):
    """The stack of this folder has been started before."""

    exit_code = 7


class DidNotStart(StackFailure):
    """A program ended at once, or did not answer its health check in time."""

    exit_code = 8
