"""The functions on strings that fhirpathpy has wrong, or not at all (https://hl7.org/fhirpath/N1/#string-manipulation)."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

from fhirpath_otel.evaluator.memory.values import plain

_ESCAPE = re.compile(r'\\(?:(["\\/])|([bfnrt])|u([0-9a-fA-F]{4}))')
_NAMED = re.compile(r"\(\?<(?![=!])")
_GROUP = re.compile(r"\$(?:([0-9]+)|\{(\w+)\})")
WITH_PATTERNS = frozenset(("matches", "matchesFull", "replaceMatches"))
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def invocations() -> dict[str, dict[str, Any]]:
    """Their rows of fhirpathpy's table."""
    functions: dict[str, tuple[int, Callable[..., Any]]] = {
        "indexOf": (1, str.find),
        "lastIndexOf": (1, str.rfind),
        "startsWith": (1, str.startswith),
        "endsWith": (1, str.endswith),
        "contains": (1, lambda text, part: part in text),
        "replace": (2, str.replace),
        "replaceMatches": (2, _replace_matches),
        "matches": (1, lambda text, pattern: _compiled(pattern).search(text) is not None),
        "matchesFull": (1, lambda text, pattern: _compiled(pattern).fullmatch(text) is not None),
        "split": (1, str.split),
        "escape": (1, _escape),
        "unescape": (1, _unescape),
    }
    return {
        "join": {"fn": _join, "arity": {0: [], 1: ["String"]}},
        **{
            name: {"fn": _on_string(function), "arity": {arguments: ["String"] * arguments}}
            for name, (arguments, function) in functions.items()
        },
    }


def _on_string(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of one string; empty where the string, or an argument, is."""

    def call(_context: Any, items: list[Any], *arguments: Any) -> Any:
        text = plain(items[0]) if items else None
        if text is None or [] in arguments:
            return None
        if not isinstance(text, str):
            raise TypeError("not a string")
        return function(text, *arguments)

    return call


def _join(_context: Any, items: list[Any], separator: Any = "") -> str | None:
    return separator.join(plain(item) for item in items) if items and separator != [] else None


def _replace_matches(text: str, pattern: str, substitution: str) -> str:
    if not pattern:
        return text
    return _compiled(pattern).sub(_GROUP.sub(r"\\g<\1\2>", substitution.replace("\\", r"\\")), text)


def pattern_error(pattern: str) -> str | None:
    """What is wrong with a regular expression."""
    try:
        _compiled(pattern)
    except re.error as error:
        return error.msg
    return None


def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of PCRE, whose groups have their names without Python's P."""
    return re.compile(_NAMED.sub("(?P<", pattern), re.DOTALL)


def _escape(text: str, target: str) -> str | None:
    if target == "html":
        return html.escape(text)
    return json.dumps(text, ensure_ascii=False)[1:-1] if target == "json" else None


def _unescape(text: str, target: str) -> str | None:
    if target == "html":
        return html.unescape(text)
    return _ESCAPE.sub(_unescaped, text) if target == "json" else None


def _unescaped(match: re.Match[str]) -> str:
    character, control, code = match.groups()
    return character or _CONTROLS.get(control) or chr(int(code, 16))
