"""Locks across a fork: another thread may hold one then, and nobody would ever release the child's copy."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def call_around_forks(
    before: Callable[[], None], after_in_parent: Callable[[], None], after_in_child: Callable[[], None]
) -> None:
    """Calls bound methods around every fork from now on, as long as their objects live."""
    if hasattr(os, "register_at_fork"):
        first, parents, childs = (
            weakref.WeakMethod(method) for method in (before, after_in_parent, after_in_child)
        )
        os.register_at_fork(
            before=lambda: (found := first()) and found(),
            after_in_parent=lambda: (found := parents()) and found(),
            after_in_child=lambda: (found := childs()) and found(),
        )


def call_in_forked_child(method: Callable[[], None]) -> None:
    """Calls a bound method in every child that is forked from now on, as long as its object lives."""
    if hasattr(os, "register_at_fork"):
        reference = weakref.WeakMethod(method)
        os.register_at_fork(after_in_child=lambda: (found := reference()) and found())
