"""From the text of an expression to its syntax tree, and the trees of the texts seen lately."""

from __future__ import annotations

import functools
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from fhirpath_otel import settings
from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator.grammar import Grammar
from fhirpath_otel.evaluator.lexer import END
from fhirpath_otel.evaluator.syntax import Node


@dataclass(frozen=True, slots=True)
class Limits:
    """What a text may cost: its characters, its tokens (comments count), and the levels of its tree."""

    length: int = 1_000_000
    tokens: int = 25_000
    depth: int = 100


DEFAULT_LIMITS = Limits()


def parse(text: str, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The syntax tree of an expression.

    Raises ExpressionSyntaxError at the first place where the text stops being FHIRPath 2.0.0, or exceeds a limit.
    """
    return _parse(text, limits)[0]


def _parse(text: str, limits: Limits) -> tuple[Node, int]:
    """The tree, and the number of tokens in the text."""
    _check_characters(text, limits.length)
    grammar = Grammar(text, limits.tokens, limits.depth)
    try:
        return grammar.whole(), len(grammar.tokens)
    except RecursionError:  # the caller's own calls left too little of the stack
        raise ExpressionSyntaxError(
            "the expression is nested deeper than the rest of this thread's stack allows",
            text,
            grammar.starts[grammar.position],
        ) from None


def _check_characters(text: str, length: int) -> None:
    if len(text) > length:
        raise ExpressionSyntaxError(
            f"the expression has more than {length:,} characters ({settings.PREFIX}MAX_EXPRESSION_LENGTH)",
            text,
            length,
        )
    if END in text:
        raise ExpressionSyntaxError("U+0000 is no character of FHIR", text, text.index(END))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise ExpressionSyntaxError(
                f"U+{code:X} is half of a surrogate pair, no character", text, error.start
            ) from None


_BYTES_PER_ENTRY = 400
_BYTES_PER_TOKEN = 120  # measured: 50 to 115, beside the text of the token


class ParserCache:
    """The trees of the texts asked for last; threads may share it.

    It holds at most `max_entries` trees, which take at most about `max_bytes` of memory: estimated from above, by the
    sizes of the texts and their numbers of tokens. A text that would exceed this alone is parsed each time, and so is
    one with an error. Times of a look-up are in the order of 0.3 µs.
    """

    __slots__ = ("_bytes", "_hits", "_limits", "_lock", "_max_bytes", "_max_entries", "_misses", "_trees")

    def __init__(
        self,
        max_entries: int = 1_000,
        max_bytes: int = 32 * 1024 * 1024,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._limits = limits
        self._trees: OrderedDict[str, tuple[Node, int]] = OrderedDict()
        self._bytes = 0
        self._hits = 0
        self._misses = 0
        self._lock = Lock()

    @property
    def hits(self) -> int:
        """Texts whose tree was there."""
        return self._hits

    @property
    def misses(self) -> int:
        """Texts that had to be parsed, those with errors included."""
        return self._misses

    @property
    def entries(self) -> int:
        """Trees held now."""
        return len(self._trees)

    @property
    def bytes(self) -> int:
        """Estimated memory of the trees held now, with their texts."""
        return self._bytes

    def parse(self, text: str) -> tuple[Node, bool]:
        """The tree, as from `parse`, and whether it was there already. Raises ExpressionSyntaxError."""
        with self._lock:
            found = self._trees.get(text)
            if found is not None:
                self._trees.move_to_end(text)
                self._hits += 1
                return found[0], True
            self._misses += 1
        tree, tokens = _parse(text, self._limits)
        self._keep(text, tree, _BYTES_PER_ENTRY + 2 * sys.getsizeof(text) + _BYTES_PER_TOKEN * tokens)
        return tree, False

    def _keep(self, text: str, tree: Node, size: int) -> None:
        if size > self._max_bytes or self._max_entries < 1:
            return
        with self._lock:
            if text in self._trees:  # another thread was faster
                return
            self._trees[text] = (tree, size)
            self._bytes += size
            while self._bytes > self._max_bytes or len(self._trees) > self._max_entries:
                _, (_, freed) = self._trees.popitem(last=False)
                self._bytes -= freed

    def renew_lock(self) -> None:
        """To be called in a forked child: a thread that held the lock is not there to release it."""
        self._lock = Lock()


@functools.cache
def shared_cache() -> ParserCache:
    """The cache of this process, with the sizes and limits of its settings."""
    chosen = settings.current()
    limits = Limits(chosen.max_expression_length, chosen.max_expression_tokens, chosen.max_expression_depth)
    cache = ParserCache(chosen.parser_cache_entries, chosen.parser_cache_bytes, limits)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=cache.renew_lock)
    return cache


def cached_parse(text: str) -> tuple[Node, bool]:
    """The tree of an expression and whether it came from this process's cache.

    Raises ExpressionSyntaxError, as `parse` does.
    """
    return shared_cache().parse(text)
