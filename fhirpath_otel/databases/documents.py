"""Resources out of JSON documents (Bundles, single resources), each with its text as it stands in the file.

A Bundle of up to 32 MiB is split by msgspec in one go. A larger or a broken one is read entry by entry, so memory
holds one entry and a buffer: the standard library's scanner finds where a value ends (at 390 MB/s, with hooks that
build nothing), and unlike msgspec it can stop there.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import msgspec

MAX_RESOURCE_BYTES = 64 << 20
"""A single resource can be this large; its text is held in memory several times while it is stored."""

SMALL_BYTES = 32 << 20
CHUNK_BYTES = 1 << 20

_TOO_EARLY = "it ends too early"
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


class Part(NamedTuple):
    """A resource's text, None for an entry without one; the line it starts on; the `fullUrl` of its entry."""

    text: bytes | None
    line: int
    full_url: str = ""


class BrokenDocumentError(Exception):
    """The text is not JSON, or not what a document must be; `line` is 1-based."""

    def __init__(self, message: str, line: int) -> None:
        self.message = message
        self.line = line
        super().__init__(message)


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"null")
    fullUrl: object = None  # noqa: N815, a key of FHIR


class _Bundle(msgspec.Struct, tag_field="resourceType", tag="Bundle"):
    entry: list[_Entry] = []


_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_bundle = msgspec.json.Decoder(_Bundle).decode


def read_documents(head: bytes, stream: BinaryIO | None, line: int = 1) -> Iterator[Part]:
    """The resources of the JSON objects that follow one another in `head` and then in `stream`.

    A Bundle yields its entries' resources, any other object itself. Raises `BrokenDocumentError`.
    """
    if stream is not None and len(head) < SMALL_BYTES:
        head += stream.read(SMALL_BYTES - len(head))
    if len(head) < SMALL_BYTES:
        try:
            bundle = _decode_bundle(head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # no Bundle, or several, or broken: the scanner finds out
        else:
            yield from _split(bundle, head, line)
            return
    scanner = _Scanner(head, stream, line)
    while scanner.peek():
        yield from _read_object(scanner)


def _split(bundle: _Bundle, text: bytes, line: int) -> Iterator[Part]:
    counted = position = 0
    for entry in bundle.entry:
        part = _part(entry, line)
        if part.text is not None:
            start = text.index(part.text, position)
            line += text.count(b"\n", counted, start)
            counted, position = start, start + len(part.text)
        yield part._replace(line=line)


def _part(entry: _Entry, line: int) -> Part:
    resource = bytes(entry.resource)
    return Part(
        None if resource == b"null" else resource,
        line,
        entry.fullUrl if isinstance(entry.fullUrl, str) else "",
    )


def _read_object(scanner: _Scanner) -> Iterator[Part]:
    first_line = scanner.keep()
    resource_type = None
    entries_passed = False
    for key in scanner.members():
        if key == "entry" and resource_type == "Bundle":
            yield from _read_entries(scanner)
        elif key == "resourceType":
            resource_type = _string(scanner.value())
            if resource_type == "Bundle" and not entries_passed:
                scanner.let_go()
        else:
            entries_passed = entries_passed or key == "entry"
            scanner.value()
    if resource_type != "Bundle":
        yield Part(scanner.kept().encode(), first_line)
    elif entries_passed:  # the type came after the entries: now that it is known, read them
        text = scanner.kept().encode()
        again = _Scanner(text, None, first_line)
        for key in again.members():
            if key == "entry":
                yield from _read_entries(again)
            else:
                again.value()


def _read_entries(scanner: _Scanner) -> Iterator[Part]:
    for _ in scanner.items():
        line = scanner.line()
        text = scanner.value().encode()
        try:
            bundle = _Bundle([_decode_entry(text)])
        except (msgspec.DecodeError, RecursionError):
            yield Part(text, line)  # for the reader to say what is wrong with it
        else:
            yield from _split(bundle, text, line)


def _string(text: str) -> str | None:
    value = json.loads(text)
    return value if isinstance(value, str) else None


def _refuse(constant: str) -> int:
    raise json.JSONDecodeError(f"no number is called {constant}", "", 0)


class _Scanner:
    """A moving window over a JSON text. Nothing is kept of values but where they end."""

    def __init__(self, head: bytes, stream: BinaryIO | None, line: int) -> None:
        self._stream = stream
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._position = 0
        self._kept: int | None = None
        self._line = line
        self._counted = 0
        self._end_of = json.JSONDecoder(
            object_pairs_hook=len, parse_float=len, parse_int=len, parse_constant=_refuse
        ).raw_decode
        self._append(head, final=stream is None)

    def line(self) -> int:
        """The line of the current position."""
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line

    def keep(self) -> int:
        """Keeps the text from here on, for `kept`. Gives the line."""
        self.peek()
        self._kept = self._position
        return self.line()

    def let_go(self) -> None:
        self._kept = None

    def kept(self) -> str:
        start, self._kept = self._kept, None
        return self._text[start : self._position]

    def peek(self) -> str:
        """The next character that is no white space, empty at the end."""
        while True:
            match = _WHITE_SPACE.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._more(CHUNK_BYTES):
                return ""

    def members(self) -> Iterator[str]:
        """The keys of the object that starts here; before the next, the caller has to pass the value."""
        for _ in self._elements("{", "}"):
            found = self.peek()
            if found != '"':
                raise self._broken("a key in double quotes is expected" if found else _TOO_EARLY)
            key = json.loads(self.value())
            self._take(":")
            yield key

    def items(self) -> Iterator[None]:
        """Once for each item of the array that starts here; before the next, the caller has to pass the value."""
        return self._elements("[", "]")

    def value(self) -> str:
        """The text of the value that starts here."""
        self.peek()
        wanted = CHUNK_BYTES
        while True:
            start = self._position
            try:
                _, end = self._end_of(self._text, start)
            except (ValueError, StopIteration) as error:
                if self._may_go_on(error) and self._more(wanted):
                    wanted = len(self._text)
                    continue
                raise self._broken(_reason(error), error) from None
            except RecursionError:
                raise self._broken("it is nested too deeply") from None
            if end == len(self._text) and self._more(wanted):  # a number may go on
                continue
            self._position = end
            return self._text[start:end]

    def _elements(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self.peek() == closing:
            self._position += 1
            return
        while True:
            self.peek()
            yield
            if self.peek() == closing:
                self._position += 1
                return
            self._take(",")

    def _take(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise self._broken(f"{character!r} is expected" if found else _TOO_EARLY)
        self._position += 1

    def _may_go_on(self, error: Exception) -> bool:
        """Whether the value is only cut off: its error is at the end, or it is a string that nothing ended."""
        if not isinstance(error, json.JSONDecodeError):
            return True
        return error.pos >= len(self._text) - len("\\ud800\\udc00") or error.msg.startswith("Unterminated")

    def _broken(self, reason: str, error: Exception | None = None) -> BrokenDocumentError:
        if isinstance(error, json.JSONDecodeError) and error.pos >= self._position:
            self._position = min(error.pos, len(self._text))
        return BrokenDocumentError(f"not valid JSON: {reason}", self.line())

    def _more(self, size: int) -> bool:
        """Reads on, and forgets what nobody needs any more. False at the end of the text."""
        if self._stream is None:
            return False
        start = self._position if self._kept is None else self._kept
        if len(self._text) - start > MAX_RESOURCE_BYTES:
            limit = f"more than {MAX_RESOURCE_BYTES >> 20} MiB, which one resource cannot have"
            raise BrokenDocumentError(limit, self.line())
        data = self._stream.read(size)
        self.line()
        self._text = self._text[start:]
        self._position -= start
        self._counted -= start
        if self._kept is not None:
            self._kept = 0
        self._append(data, final=not data)
        return bool(data)

    def _append(self, data: bytes, *, final: bool) -> None:
        try:
            self._text += self._utf8.decode(data, final)
        except UnicodeDecodeError as error:
            line = self._line + self._text.count("\n", self._counted) + data.count(b"\n", 0, error.start)
            raise BrokenDocumentError("not UTF-8", line) from None
        if final:
            self._stream = None


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg[0].lower() + error.msg[1:].removesuffix(" starting at")
    return _TOO_EARLY
