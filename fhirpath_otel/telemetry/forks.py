"""Locks across a fork: another thread may hold one then, and nobody would ever release the child's copy."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def call_in_forked_child(method: Callable[[], None]) -> None:
    """Calls a bound method in every child that is forked from now on, as long as its object lives."""
    if hasattr(os, "register_at_fork"):
        reference = weakref.WeakMethod(method)
        os.register_at_fork(after_in_child=lambda: (found := reference()) and found())
