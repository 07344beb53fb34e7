"""Files of FHIR resources: which ones to read, what they hold, and what is wrong with them.

A file is judged by its content: gzip or not, one resource a line (NDJSON) or a JSON document (a Bundle, a single
resource). Its name decides only where broken content leaves both open. Every resource comes with its text as it stands
in the file.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec

from fhirpath_otel.databases.documents import MAX_RESOURCE_BYTES, BrokenDocumentError, read_documents
from fhirpath_otel.databases.problems import (
    DOCUMENT_ENDS,
    SKIPPABLE,
    file_problem,
    header_problem,
    text_problem,
)
from fhirpath_otel.errors import LoadError, UsageError

BUFFER_BYTES = 1 << 20
LOADABLE = re.compile(r"\.(ndjson|jsonl|json)(\.gz)?$", re.IGNORECASE)

_LINES = re.compile(r"\.(ndjson|jsonl)(\.gz)?$", re.IGNORECASE)
_UUID_URL = "urn:uuid:"
_FIRST_LINE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files to read, in order, and what was in their folders beside them."""

    files: tuple[str, ...]
    ignored: tuple[str, ...]


class Header(Protocol):
    """What every resource has to tell; empty where it does not."""

    resourceType: str  # noqa: N815, a key of FHIR
    id: str


class PlainHeader(msgspec.Struct):
    """The header alone of a text."""

    resourceType: str = ""  # noqa: N815, a key of FHIR
    id: str = ""


class Resource(NamedTuple):
    """A resource with its text as it stands in the file, without the line end. `line` is 1-based.

    `header` is what the reader's `read_header` gave; `id` can come from the entry of a Bundle instead.
    """

    type: str
    id: str
    text: bytes
    line: int
    header: Header


_decode_header = msgspec.json.Decoder(PlainHeader).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_header(text: bytes) -> Header:
    """The header of a text, which is checked to be JSON throughout. Raises msgspec.DecodeError if it is none."""
    return _decode_header(text)


def discover(paths: Iterable[str | os.PathLike[str]]) -> Inputs:
    """The files behind paths, folders (all levels, by name) and patterns such as `export/*.ndjson`.

    A file that is named is always read; of a folder, what ends in .ndjson, .jsonl or .json, also with .gz.
    The same file is read once. Raises UsageError where there is nothing to read.
    """
    files: dict[tuple[int, int], str] = {}
    ignored: list[str] = []
    for path in chain.from_iterable(map(_matches, paths)):
        found = [path]
        if path.is_dir():
            found = list(_walk(path, ignored))
            if not found:
                raise UsageError(f"{path}: no .ndjson, .jsonl or .json file in this folder")
        for file in found:
            status = file.stat()
            files.setdefault((status.st_dev, status.st_ino), str(file))
    if not files:
        raise UsageError("nothing to load: name a file or a folder")
    return Inputs(tuple(files.values()), tuple(ignored))


def _matches(given: str | os.PathLike[str]) -> list[Path]:
    if not os.fspath(given):
        raise UsageError("an empty path; name a file or a folder (. is the current one)")
    path = Path(given)
    if path.is_file() or path.is_dir():
        return [path]
    if "://" in os.fspath(given):
        raise UsageError(f"{given}: only files of this machine can be loaded; download it first")
    if path.exists():
        raise UsageError(f"{path}: neither a file nor a folder; a load reads its input twice")
    if not glob.has_magic(str(path)):
        raise UsageError(f"{path}: no such file or folder")
    found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207, Path.glob takes no absolute ones
    if not found:
        raise UsageError(f"{path}: no file or folder matches")
    return found


def _walk(folder: Path, ignored: list[str]) -> Iterator[Path]:
    """The loadable files below a folder; hidden ones and links to folders are ignored."""
    for here, folders, names in os.walk(folder, onerror=_unreadable):
        passed = {name for name in folders if name.startswith(".") or Path(here, name).is_symlink()}
        folders[:] = sorted(set(folders) - passed)
        for name in sorted([*names, *passed]):
            path = Path(here, name)
            if LOADABLE.search(name) and not name.startswith(".") and path.is_file():
                yield path
            else:
                ignored.append(str(path))


def _unreadable(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from None


class Reader:
    """Reads files, and tells what cannot be loaded in them.

    `reject` gets a LoadError for each resource or file that is left out; it may raise it to stop. `advance` gets
    the number of bytes read from disk. `read_header` reads the header of a text and checks that the text is JSON.
    `entries_without_resource` counts over all files.
    """

    def __init__(
        self,
        resource_types: frozenset[str],
        reject: Callable[[LoadError], None],
        advance: Callable[[int], None] = lambda _: None,
        read_header: Callable[[bytes], Header] = read_header,
    ) -> None:
        self.entries_without_resource = 0
        self._types = resource_types
        self._reject = reject
        self._advance = advance
        self._read_header = read_header

    def read(self, path: str) -> Iterator[Resource]:
        """The resources of a file, in their order."""
        try:
            with (
                io.BufferedReader(_Watched(path, self._advance), BUFFER_BYTES) as file,
                _unpacked(file) as stream,
            ):
                yield from self._read(stream, path)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self._reject(LoadError("the gzip data is damaged or cut off; get the file anew", path))
        except OSError as error:
            self._reject(LoadError(f"cannot be read: {error.strerror or error}", path))

    def _read(self, stream: BinaryIO, path: str) -> Iterator[Resource]:
        head = _first_lines(stream)
        start = b"".join(head)
        if problem := file_problem(start.lstrip()[:BUFFER_BYTES]):
            self._reject(LoadError(problem, path))
        elif _is_document(head, path):
            yield from self._documents(start, stream, path, 1)
        else:
            if not head[-1].endswith(b"\n"):
                head[-1] += stream.readline(MAX_RESOURCE_BYTES - len(head[-1]))
            yield from self._lines(chain(head, iter(lambda: stream.readline(MAX_RESOURCE_BYTES), b"")), path)

    def _lines(self, pieces: Iterator[bytes], path: str) -> Iterator[Resource]:
        for number, line in enumerate(pieces, 1):
            text = line.rstrip(b"\r\n")
            if len(text) == MAX_RESOURCE_BYTES:
                limit = f"a line of more than {MAX_RESOURCE_BYTES >> 20} MiB, which one resource cannot be"
                self._reject(LoadError(f"{limit}; {SKIPPABLE}", path, number))
                next((piece for piece in pieces if piece.endswith(b"\n")), None)
            elif text and not text.isspace():
                resource = self._resource(text, path, number, container=True)
                if resource and resource.type == "Bundle":
                    yield from self._documents(text, None, path, number)
                elif resource:
                    yield resource

    def _documents(self, head: bytes, stream: BinaryIO | None, path: str, line: int) -> Iterator[Resource]:
        try:
            for part in read_documents(head, stream, line):
                if part.text is None:
                    self.entries_without_resource += 1
                elif resource := self._resource(part.text, path, part.line, part.full_url):
                    yield resource
        except BrokenDocumentError as error:
            self._reject(LoadError(f"{error.message}, {DOCUMENT_ENDS}", path, error.line))

    def _resource(
        self, text: bytes, path: str, line: int, full_url: str = "", *, container: bool = False
    ) -> Resource | None:
        """The resource that a text is; None, after `reject`, if it is none. A `container` may lack an id."""
        try:
            header = self._read_header(text)
            if not text.isascii():
                text.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._reject(LoadError(text_problem(text, error), path, line))
            return None
        type_, id_ = header.resourceType, header.id
        if not id_ and full_url.startswith(_UUID_URL):
            id_ = full_url[len(_UUID_URL) :]
        if type_ in self._types and (id_ or (container and type_ == "Bundle")):
            return Resource(type_, id_, text, line, header)
        self._reject(LoadError(header_problem(type_, self._types), path, line))
        return None


class _Watched(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: str, advance: Callable[[int], None]) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: Any) -> int | None:
        size = super().readinto(buffer)
        self._advance(size or 0)
        return size


def _unpacked(file: io.BufferedReader[Any]) -> BinaryIO:
    """The content, through gzip where its first bytes say so."""
    if file.peek(2).startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER_BYTES)
    return file


def _first_lines(stream: BinaryIO) -> list[bytes]:
    """The lines up to the second that is not blank, or to the beginning of a very long one; no byte order mark."""
    lines: list[bytes] = []
    filled = 0
    while filled < 2 and (line := stream.readline(_FIRST_LINE_BYTES)):
        lines.append(line if lines else line.removeprefix(codecs.BOM_UTF8))
        filled += not lines[-1].isspace()
        if not line.endswith(b"\n"):
            break
    return lines


def _is_document(head: list[bytes], path: str) -> bool:
    """Whether the file is one JSON text over many lines, or over one that is too long to tell.

    Such a text goes on from its first line to its second. Two lines that are broken alike do not, unless the first
    breaks off at the beginning of a list: there a second object tells nothing, and the name has to.
    """
    filled = [line for line in head if line and not line.isspace()]
    if not filled[0].lstrip().startswith(b"{") or any(map(_is_complete, filled)):
        return False
    if len(filled) == 1:
        return len(filled[0]) == _FIRST_LINE_BYTES and not _LINES.search(path)
    if filled[1].startswith(b"{") and _LINES.search(path):
        return False
    return filled[0].strip() == b"{" or _goes_on(b"".join(filled))


def _goes_on(text: bytes) -> bool:
    """Whether nothing is wrong with a JSON text but that it ends too early."""
    try:
        _decode_object(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return "truncated" in str(error)
    return True


def _is_complete(line: bytes) -> bool:
    try:
        _decode_object(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
