"""What statements of the collector's transformation language are put together from."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def text(value: str) -> str:
    """A literal of OTTL."""
    return json.dumps(value, ensure_ascii=False)


def texts(values: Iterable[str], *more: str) -> str:
    """A list of literals, and of more that are literals already."""
    return "[" + ", ".join([*more, *(text(value) for value in values)]) + "]"


def path(of: str, name: str) -> str:
    """An attribute of a span, a resource or another of the language's contexts."""
    return f"{of}.attributes[{text(name)}]"


def exactly(value: str) -> str:
    """A pattern for a text."""
    return re.sub(r"[][.?*+(){}|^$\\]", r"\\\g<0>", value)
