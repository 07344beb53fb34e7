"""A place in the text of an expression, shown under it.

The text is a user's: it can be megabytes long, span lines, and hold tabs, control characters or letters that take two
cells of a terminal. What comes back is one line of it, safe to print, with carets that stand where they should.
"""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"
REPLACEMENT = "�"


def caret(text: str, start: int, end: int, width: int = 100) -> str:
    """Two lines: the part of the text around a place, cut to `width` cells, and carets under that place.

    `start` and `end` are 0-based offsets of characters, half open. Of a text with several lines, the line with `start`
    is shown. A place at or after the end of the text gets one caret after its last character.
    """
    start = min(start, len(text))
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    last = len(text) if last < 0 else last
    end = max(start, min(end, last))

    # The place comes first; what is left of the width goes to the text before it, then to the text after it.
    place, cut_at = _fit(text, range(start, end), width - 4)
    room = max(width - 2 - max(_cells(place), 1), 0)
    before, begin = _fit(
        text, range(start - 1, first - 1, -1), room * 2 // 3 if cut_at == end < last else room
    )
    after, stop = _fit(text, range(cut_at, last), room - _cells(before)) if cut_at == end else ("", cut_at)
    left = before[::-1] if begin < first else ELLIPSIS + before[::-1]
    right = after if stop >= last else after + ELLIPSIS

    return f"{left}{place}{right}\n{' ' * _cells(left)}{'^' * max(_cells(place), 1)}"


def printable(text: str) -> str:
    """The text with every character that would move the cursor, or that cannot be encoded, replaced."""
    return "".join(map(_visible, text))


def _fit(text: str, places: range, room: int) -> tuple[str, int]:
    """As many characters at these places as fit into the cells, and the first place that is left."""
    taken: list[str] = []
    for place in places:
        shown = _visible(text[place])
        room -= _cells(shown)
        if room < 0:
            return "".join(taken), place
        taken.append(shown)
    return "".join(taken), places.stop


def _visible(character: str) -> str:
    if character == "\t":
        return " "
    # Control and format characters, among them those that turn the direction of writing, and lone surrogates.
    return REPLACEMENT if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else character


def _cells(text: str) -> int:
    """How many cells of a terminal a printable text takes."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
