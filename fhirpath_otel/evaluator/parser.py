"""From the text of an expression to its syntax tree, and the trees of the texts seen lately."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass

from fhirpath_otel import settings
from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator.bounded_cache import BoundedCache
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

    __slots__ = ("_limits", "_trees")

    def __init__(
        self,
        max_entries: int = 1_000,
        max_bytes: int = 32 * 1024 * 1024,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._trees: BoundedCache[str, Node] = BoundedCache(max_entries, max_bytes)
        self._limits = limits

    @property
    def hits(self) -> int:
        """Texts whose tree was there."""
        return self._trees.hits

    @property
    def misses(self) -> int:
        """Texts that had to be parsed, those with errors included."""
        return self._trees.misses

    @property
    def entries(self) -> int:
        """Trees held now."""
        return self._trees.entries

    @property
    def bytes(self) -> int:
        """Estimated memory of the trees held now, with their texts."""
        return self._trees.bytes

    def parse(self, text: str) -> tuple[Node, bool]:
        """The tree, as from `parse`, and whether it was there already. Raises ExpressionSyntaxError."""
        found = self._trees.get(text)
        if found is not None:
            return found, True
        tree, tokens = _parse(text, self._limits)
        size = _BYTES_PER_ENTRY + 2 * sys.getsizeof(text) + _BYTES_PER_TOKEN * tokens
        self._trees.put(text, tree, size)
        return tree, False


@functools.cache
def shared_cache() -> ParserCache:
    """The cache of this process, with the sizes and limits of its settings."""
    chosen = settings.current()
    limits = Limits(chosen.max_expression_length, chosen.max_expression_tokens, chosen.max_expression_depth)
    return ParserCache(chosen.parser_cache_entries, chosen.parser_cache_bytes, limits)


def cached_parse(text: str) -> tuple[Node, bool]:
    """The tree of an expression and whether it came from this process's cache.

    Raises ExpressionSyntaxError, as `parse` does.
    """
    return shared_cache().parse(text)
