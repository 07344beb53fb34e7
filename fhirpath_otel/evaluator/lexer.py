"""Cuts the text of an expression into tokens, and reads the values that tokens stand for.

Tokens are plain strings beside two lists of offsets: one `re.split` and one `accumulate` make them without a Python
loop (0.2 µs a token; a match object for each takes longer). Cutting rejects nothing. What is no token, such as a stray
character or a string that never ends, becomes a token that the parser finds no use for: errors then come in the order
of the text. Every alternative of the pattern takes linear time on any text.
"""

from __future__ import annotations

import re
from itertools import accumulate

from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator.dates import is_date

END = "\0"
"""The token after the last one; the parser refuses texts that contain this character."""

_UNITS = ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
CALENDAR_UNITS = frozenset((*_UNITS, *(f"{unit}s" for unit in _UNITS)))

RESERVED = CALENDAR_UNITS | {"and", "or", "xor", "implies", "div", "mod", "true", "false"}
"""Words that are names only in backticks. The other keywords, `as`, `contains`, `in` and `is`, may be names."""

_DATE = "[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2})?)?"
_TIME = "[0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)?)?"
_ZONE = "(?:Z|[+-][0-9]{2}:[0-9]{2})"

# The last alternative takes any character, so that only white space is left between tokens. What is not closed runs to
# the end of the text (`\Z`), or the search would begin anew in its middle and take quadratic time.
_split = re.compile(
    rf"""(
      [A-Za-z_][A-Za-z0-9_]*
    | [.()\[\],=]
    | '[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z)
    | [0-9]+(?:[.][0-9]+)?
    | [<>]=? | ![=~]
    | //[^\r\n]* | /\*.*?(?:\*/|\Z)
    | @{_DATE}(?:T(?:{_TIME}{_ZONE}?)?)? | @T{_TIME}
    | `[^`\\]*(?:\\.[^`\\]*)*(?:`|\\?\Z)
    | \$[A-Za-z0-9_]*
    | %(?:vs|ext)-[A-Za-z0-9_-]*[A-Za-z0-9_]
    | [^ \t\r\n]
    )""",
    re.VERBOSE | re.DOTALL,
).split

_escapes = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL
).sub
_parts = re.compile(rf"@({_DATE})?T?(?:({_TIME})({_ZONE})?)?").fullmatch
_zone_of_time = re.compile(rf"@T{_TIME}({_ZONE})").match

_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"} | {c: c for c in "'\"`\\/"}


def tokenize(text: str, limit: int) -> tuple[list[str], list[int], list[int], bool]:
    """The tokens, where each starts and ends, and whether more than `limit` (comments included) were left out.

    The last token is `END`.
    """
    pieces = _split(text, limit)
    offsets = list(accumulate(map(len, pieces)))
    tokens, starts, ends = pieces[1::2], offsets[::2], offsets[1::2]
    rest = pieces[-1].lstrip(" \t\r\n")
    if rest:
        starts[-1] -= len(rest)
    tokens.append(END)
    ends.append(len(text))
    if ("//" in text or "/*" in text) and END + "/" in END + END.join(tokens):
        kept = [index for index, token in enumerate(tokens) if not _is_comment(token)]
        tokens = [tokens[index] for index in kept]
        starts = [starts[index] for index in kept]
        ends = [ends[index] for index in kept]
    return tokens, starts, ends, bool(rest)


def _is_comment(token: str) -> bool:
    return token.startswith("//") or (token.startswith("/*") and token.endswith("*/") and len(token) > 3)


def unquote(text: str, token: str, start: int) -> str:
    """What a string or a name in backticks stands for (section "String", the table of escapes).

    Raises ExpressionSyntaxError where the token is not closed, or has an escape that stands for no character. NUL
    and half a surrogate pair are refused, as the parser does outside of escapes.
    """
    content = token[1:-1]
    if len(token) > 1 and token[-1] == token[0]:
        if "\\" not in content:
            return content
        if (len(content) - len(content.rstrip("\\"))) % 2 == 0:  # else the last quote is escaped
            return _escapes(lambda escape: _unescape(text, escape, start + 1), content)
    kind = "string" if token[0] == "'" else "name in backticks"
    raise ExpressionSyntaxError(f"no {token[0]} closes the {kind}", text, start)


def _unescape(text: str, escape: re.Match[str], offset: int) -> str:
    high, low, code, character = escape.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if code:
        value = int(code, 16)
        if value and not 0xD800 <= value <= 0xDFFF:
            return chr(value)
        complaint = f"\\u{code} is no character"
    elif character == "u":
        complaint = "\\u takes four hexadecimal digits"
    elif character in _ESCAPED:
        return _ESCAPED[character]
    else:
        complaint = f"unknown escape {excerpt(escape[0])}; a backslash itself is written \\\\"
    raise ExpressionSyntaxError(complaint, text, offset + escape.start(), offset + escape.end())


def temporal_type(text: str, token: str, start: int) -> str:
    """`Date`, `DateTime` or `Time`. Raises ExpressionSyntaxError for what no calendar or clock shows.

    The ranges are those of sections "Date", "Time" and "DateTime"; offsets go to 14:00, as in FHIR.
    """
    parts = _parts(token)
    assert parts is not None
    day, time, zone = parts.groups()

    def complain(what: str, group: int) -> ExpressionSyntaxError:
        begin, end = start + parts.start(group), start + parts.end(group)
        return ExpressionSyntaxError(f"there is no {what} {text[begin:end]}", text, begin, end)

    if day and not is_date(day):
        raise complain("date", 1)
    if time and (time[:2] > "23" or time[3:5] > "59" or time[6:8] > "59"):
        raise complain("time", 2)
    if zone and zone != "Z" and (zone[1:] > "14:00" or zone[4:] > "59"):
        raise complain("time zone offset", 3)
    if day:
        return "DateTime" if "T" in token else "Date"
    if wrong := _zone_of_time(text, start):
        raise ExpressionSyntaxError("a time has no time zone", text, wrong.start(1), wrong.end(1))
    return "Time"


def excerpt(token: str) -> str:
    """The beginning of a token in quotes, safe to print: short, on one line, without control characters."""
    shown = token[:20]
    if not shown.isprintable():
        shown = shown.encode("unicode_escape").decode("ascii")
    return f"'{shown}…'" if len(token) > 20 else f"'{shown}'"
