"""Which ports are free: asked before anything is started, so that nobody wonders whom they reached."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from contextlib import ExitStack, suppress

from tools.stack.failures import PortTaken, WrongVariable
from tools.stack.services import PORTS, SERVICES, Plan

# Below those that systems hand out to connections by themselves, which could take one between our look and its use.
_QUIET = range(20_000, 32_000)


def refuse_taken_ports(plan: Plan, services: Collection[str] = SERVICES) -> None:
    """Raises PortTaken if somebody listens on a port of these programs, or two ports of the plan are the same.

    Raises WrongVariable where this machine has not the address that they are to listen on.
    """
    try:
        _listening(plan.listen, 0).close()
    except OSError as error:
        raise WrongVariable(
            f"STACK_LISTEN={plan.listen} is no address to listen on: {error.strerror or error}. "
            "It can be 127.0.0.1, another IPv4 address of this machine, or 0.0.0.0 for all of them"
        ) from error
    taken = []
    wanted: dict[int, str] = {}
    with ExitStack() as held:
        for port in PORTS:
            number = plan.port(port.variable)
            first = wanted.setdefault(number, port.variable)
            if first != port.variable:
                taken.append(f"  {number}: {first} and {port.variable} are the same")
                continue
            if port.service not in services:
                continue
            try:
                held.enter_context(_listening(plan.host(port), number))
            except OSError as error:
                taken.append(
                    f"  {number} ({port.service}, {port.what}): {error.strerror or error}; "
                    f"another one, for example: {port.variable}={_free_port(held)}"
                )
    if taken:
        raise PortTaken("nothing was started, because these ports cannot be had:\n" + "\n".join(taken))


def free_ports() -> dict[str, str]:
    """A free port for each variable, for a stack that runs beside others."""
    with ExitStack() as held:
        return {port.variable: str(_free_port(held)) for port in PORTS}


def _free_port(held: ExitStack) -> int:
    """A port that is free, and listened on until `held` ends, so that the next call gives another one."""
    for port in random.sample(_QUIET, 200):
        with suppress(OSError):
            held.enter_context(_listening("127.0.0.1", port))
            return port
    raise PortTaken(f"no port between {_QUIET.start} and {_QUIET.stop} is free")


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET)
    try:
        # As Go does; without it a port would seem taken for a minute after its program ended.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener
