"""What is wrong with an input that cannot be loaded, and what to do: one sentence each."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from difflib import get_close_matches

import msgspec

SKIPPABLE = "mend it, or skip what is broken (--on-error skip)"
DOCUMENT_ENDS = "so the document cannot be read from here on; mend it, or skip the rest (--on-error skip)"


def without_advice(problem: str) -> str:
    """A problem as it is listed once it was skipped."""
    return re.sub(r"; mend it, or skip [a-z ]+\(--on-error skip\)$", "", problem)


def file_problem(start: bytes) -> str | None:
    """Why a file that begins like this, after white space, cannot hold FHIR JSON at all."""
    if not start:
        return "the file is empty; remove it, or get it anew"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the file is UTF-16; convert it to UTF-8"
    if b"\0" in start or not start[:1].isascii() or start[0] < ord(" "):
        return "binary data; only JSON text can be loaded, plain or gzipped"
    if start.startswith(b"<"):
        return "XML; only FHIR's JSON format can be loaded"
    if start.startswith(b"["):
        return "a JSON array; put each resource on a line of its own (NDJSON), or all into a Bundle"
    return None


def header_problem(type_: str, resource_types: Iterable[str]) -> str:
    """Why a JSON object with such a header is not loaded."""
    if not type_:
        return f"JSON without a resourceType is no FHIR resource; {SKIPPABLE}"
    if type_ not in resource_types:
        close = get_close_matches(type_, resource_types, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"FHIR R4 has none of that name; {SKIPPABLE}"
        return f"unknown resource type {type_!r}; {hint}"
    return f"this {type_} has no id, by which it could be told from others; {SKIPPABLE}"


def text_problem(text: bytes, error: Exception) -> str:
    """Why a text is no resource, after decoding its header failed."""
    try:
        text.decode()
    except UnicodeDecodeError as undecodable:
        return f"not UTF-8 at byte {undecodable.start}; convert the file to UTF-8"
    if isinstance(error, RecursionError):
        return f"JSON that is nested too deeply; {SKIPPABLE}"
    if not isinstance(error, msgspec.ValidationError):
        return f"not valid JSON: {_reason(text, error)}; {SKIPPABLE}"
    if text.lstrip().startswith(b"{"):
        return f"resourceType and id have to be strings; {SKIPPABLE}"
    return f"a FHIR resource is a JSON object, which this is not; {SKIPPABLE}"


def _reason(text: bytes, error: Exception) -> str:
    """What msgspec found, in our words where its own mislead: it takes half of a surrogate pair for the end."""
    reason = str(error).removeprefix("JSON is malformed: ")
    if "truncated" not in reason and "hex escape" not in reason:
        return reason
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return "it ends too early" if "truncated" in reason else reason
    return "an escape is half of a surrogate pair"
