"""The grammar of FHIRPath 2.0.0 (https://hl7.org/fhirpath/N1/grammar.html), by precedence climbing (Pratt).

No tree is higher than the limit, whatever makes it so (parentheses, signs, paths, alternating operators): everybody
may recurse over it. Beyond the grammar, `%vs-name` and `%ext-name` are taken as FHIR R4 writes them, without backticks.
"""

# ruff: noqa: S105 (a token is a piece of text here, no password)

from __future__ import annotations

from collections.abc import Callable
from string import ascii_letters

from msgspec.structs import replace

from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator.lexer import CALENDAR_UNITS, END, RESERVED, temporal_type, tokenize, unquote
from fhirpath_otel.evaluator.mistakes import OUTERMOST, explain
from fhirpath_otel.evaluator.syntax import (
    OPERATOR_LEVELS,
    BooleanLiteral,
    EmptyLiteral,
    ExternalConstant,
    Function,
    Indexer,
    Member,
    Node,
    NumberLiteral,
    Operation,
    QuantityLiteral,
    Sign,
    StringLiteral,
    TemporalLiteral,
    TypeOperation,
    TypeSpecifier,
    Variable,
)
from fhirpath_otel.settings import PREFIX

_TYPE = 1 + OPERATOR_LEVELS.index(("is", "as"))
_SIGN = 1 + len(OPERATOR_LEVELS)
_POWERS = {operator: power for power, level in enumerate(OPERATOR_LEVELS, 1) for operator in level}
_STEPS = frozenset((".", "["))
_LETTERS = frozenset(ascii_letters + "_")
_NAME_START = _LETTERS | {"`"}
_VARIABLES = frozenset(("$this", "$index", "$total"))

# The specification asks for 28; beyond 4,300 Python refuses to read a whole number.
LONGEST_NUMBER = 100


class Grammar:
    """One text being parsed: its tokens, the position among them, and the height of the tree made last (1: a leaf)."""

    __slots__ = ("cut_off", "depth", "ends", "height", "position", "starts", "text", "token_limit", "tokens")

    def __init__(self, text: str, token_limit: int, depth: int) -> None:
        self.text = text
        self.token_limit = token_limit
        self.depth = depth
        self.tokens, self.starts, self.ends, self.cut_off = tokenize(text, token_limit)
        self.position = 0
        self.height = 1

    def whole(self) -> Node:
        """The tree of the whole text. Raises ExpressionSyntaxError."""
        node = self.expression(1, 0)
        if self.tokens[self.position] != END or self.cut_off:
            raise self.unexpected(OUTERMOST)
        return node

    def expression(self, minimum: int, level: int) -> Node:
        """The longest expression from here whose operators bind with `minimum` or more, `level` levels deep."""
        tokens, depth = self.tokens, self.depth
        if level > depth:
            raise self.too_deep(self.position)
        first = tokens[self.position]
        if first[0] in _NAME_START and first not in RESERVED:
            node = self.path(None, level)
        else:
            node = _TERMS.get(first[0], Grammar.no_term)(self, level)
            if tokens[self.position] in _STEPS:
                node = self.path(node, level)
        while True:
            if self.height > depth:
                raise self.too_deep(self.position - 1)
            operator = tokens[self.position]
            power = _POWERS.get(operator, 0)
            if power < minimum:
                return node
            if power == _TYPE:
                node = self.type_operation(node, operator, level)
            else:
                node = self.operation(node, operator, power, level)

    def path(self, node: Node | None, level: int) -> Node:
        """What follows `node`: names, calls and indexers; without a node the first name is of the context."""
        tokens, starts, ends = self.tokens, self.starts, self.ends
        position = self.position
        start, height = (starts[position], 0) if node is None else (node.start, self.height)
        while height <= self.depth:
            if node is not None:
                step = tokens[position]
                if step == "[":
                    self.position = position + 1
                    index = self.expression(1, level + 1)
                    node = Indexer(start, self.close("]", "[", position), node, index)
                    position, height = self.position, max(height, self.height) + 1
                    continue
                if step != ".":
                    self.position, self.height = position, height
                    return node
                position += 1
            token = name = tokens[position]
            if token[0] not in _LETTERS or token in RESERVED:
                self.position = position
                name = self.unusual_name(node)
            if tokens[position + 1] != "(" or token[0] == "$":
                node = Member(start, ends[position], node, name, starts[position], token[0] == "`")
                position, height = position + 1, height + 1
            else:
                self.position = position + 2
                arguments = self.arguments(level + 1)
                end = self.close(")", "(", position + 1, "',' or ')'")
                node = Function(start, end, node, name, starts[position], arguments)
                position = self.position
                height = (height if height > self.height else self.height) + 1  # noqa: FURB136 (as below)
        raise self.too_deep(position - 1)

    def arguments(self, level: int) -> tuple[Node, ...]:
        """What stands between the parentheses of a call; `height` is that of the highest, 0 if there are none."""
        tokens = self.tokens
        self.height = height = 0
        if tokens[self.position] == ")":
            return ()
        arguments = []
        while True:
            arguments.append(self.expression(1, level))
            if self.height > height:  # noqa: PLR1730 (max() makes a parse 5 % slower)
                height = self.height
            if tokens[self.position] != ",":
                self.height = height
                return tuple(arguments)
            self.position += 1

    def operation(self, left: Node, operator: str, power: int, level: int) -> Node:
        """A run of one operator."""
        tokens, position, height = self.tokens, self.position, self.height
        operands = [left]
        while tokens[self.position] == operator:
            self.position += 1
            operands.append(self.expression(power + 1, level + 1))
            if self.height > height:  # noqa: PLR1730 (max() makes a parse 5 % slower)
                height = self.height
        self.height = height + 1
        return Operation(left.start, operands[-1].end, operator, tuple(operands), self.starts[position])

    def type_operation(self, node: Node, operator: str, level: int) -> Node:
        """`is` or `as`. A call after the type is no part of its name: `a is b.c()` asks `(a is b)` for `c()`."""
        tokens, first = self.tokens, self.position + 1
        self.position = first
        expected = f"the name of a type after '{operator}'"
        names = [self.name(expected)]
        while tokens[self.position] == "." and _is_name(tokens[self.position + 1]):
            if tokens[self.position + 2] == "(":
                break
            self.position += 1
            names.append(self.name(expected))
        end = self.ends[self.position - 1]
        namespace = names.pop(0) if len(names) > 1 else None
        specifier = TypeSpecifier(self.starts[first], end, namespace, ".".join(names))
        self.height += 1
        node = TypeOperation(node.start, end, operator, node, specifier)
        return self.path(node, level) if tokens[self.position] in _STEPS else node

    # --- terms: each stands at its first token

    def boolean(self, level: int) -> Node:
        """`true` or `false`"""
        position = self.position
        token = self.tokens[position]
        if token not in {"true", "false"}:
            return self.no_term(level)
        self.position, self.height = position + 1, 1
        return BooleanLiteral(self.starts[position], self.ends[position], token == "true")

    def string(self, _level: int) -> Node:
        """`'text'`"""
        position = self.position
        start = self.starts[position]
        value = unquote(self.text, self.tokens[position], start)
        self.position, self.height = position + 1, 1
        return StringLiteral(start, self.ends[position], value)

    def number(self, _level: int) -> Node:
        """A number, with the unit that makes it a quantity."""
        position = self.position
        token, unit = self.tokens[position : position + 2]
        start = self.starts[position]
        if len(token) > LONGEST_NUMBER:
            message = f"a number has at most {LONGEST_NUMBER} digits"
            raise ExpressionSyntaxError(message, self.text, start, self.ends[position])
        self.position, self.height = position + 1, 1
        calendar = unit in CALENDAR_UNITS
        if calendar or unit[0] == "'":
            self.position = position + 2
            unit = unit if calendar else unquote(self.text, unit, self.starts[position + 1])
            return QuantityLiteral(start, self.ends[position + 1], token, unit, calendar)
        return NumberLiteral(start, self.ends[position], token, "Decimal" if "." in token else "Integer")

    def temporal(self, level: int) -> Node:
        """`@2015-02-04`, `@2015-02-04T14:34:28Z`, `@T14:34`"""
        position = self.position
        token, start = self.tokens[position], self.starts[position]
        if token == "@":
            return self.no_term(level)
        type_name = temporal_type(self.text, token, start)
        self.position, self.height = position + 1, 1
        return TemporalLiteral(start, self.ends[position], token.lstrip("@T"), type_name)

    def variable(self, level: int) -> Node:
        """`$this`, `$index` or `$total`"""
        position = self.position
        token = self.tokens[position]
        if token not in _VARIABLES:
            return self.no_term(level)
        self.position, self.height = position + 1, 1
        return Variable(self.starts[position], self.ends[position], token)

    def external_constant(self, _level: int) -> Node:
        """`%name`, %`a name`, %'a name'; `%vs-name` and `%ext-name`"""
        position = self.position
        token, following = self.tokens[position : position + 2]
        start = self.starts[position]
        self.position, self.height = position + 1, 1
        if len(token) > 1:
            return ExternalConstant(start, self.ends[position], token[1:], True)
        if following[0] == "'":
            name = unquote(self.text, following, self.starts[position + 1])
            self.position += 1
        else:
            name = self.name("a name after '%'")
        return ExternalConstant(start, self.ends[position + 1], name, following[0] in "'`")

    def empty(self, _level: int) -> Node:
        """`{}`"""
        start = self.starts[self.position]
        self.position, self.height = self.position + 1, 1
        return EmptyLiteral(start, self.close("}", "{", self.position - 1))

    def group(self, level: int) -> Node:
        """`(expression)`"""
        position = self.position
        self.position = position + 1
        node = self.expression(1, level + 1)
        return replace(node, start=self.starts[position], end=self.close(")", "(", position))

    def sign(self, level: int) -> Node:
        """`+operand` or `-operand`"""
        position = self.position
        self.position = position + 1
        operand = self.expression(_SIGN, level + 1)
        self.height += 1
        return Sign(self.starts[position], operand.end, self.tokens[position], operand)

    def no_term(self, _level: int) -> Node:
        """Always raises: no expression begins with this token."""
        raise self.unexpected("an expression")

    # --- tokens

    def name(self, expected: str) -> str:
        """An identifier, plain or in backticks."""
        position = self.position
        token = self.tokens[position]
        if not _is_name(token):
            raise self.unexpected(expected)
        self.position = position + 1
        return unquote(self.text, token, self.starts[position]) if token[0] == "`" else token

    def unusual_name(self, node: Node | None) -> str:
        """A name in backticks, or a variable as a step: the grammar has `a.$this`, which is kept as a member."""
        token = self.tokens[self.position]
        if token in _VARIABLES and node is not None:
            self.position += 1
            return token
        return self.name("a name" if node is None else "a name after '.'")

    def close(self, closing: str, opening: str, opened: int, expected: str = "") -> int:
        """The end of the closing token here, for what was opened at the token `opened`."""
        position = self.position
        if self.tokens[position] != closing:
            expected = expected or f"'{closing}'"
            raise self.unexpected(f"{expected} to close '{opening}' at {self.starts[opened]}")
        self.position = position + 1
        return self.ends[position]

    def unexpected(self, expected: str) -> ExpressionSyntaxError:
        """What to raise where the token here is not what the grammar wants."""
        if self.cut_off and self.tokens[self.position] == END:
            return self.exceeded(f"{self.token_limit:,} tokens", "MAX_EXPRESSION_TOKENS", self.position)
        return explain(self.text, self.tokens, self.starts, self.ends, index=self.position, expected=expected)

    def too_deep(self, position: int) -> ExpressionSyntaxError:
        """What to raise where the token at `position` exceeds the depth."""
        return self.exceeded(f"{self.depth:,} levels of nesting", "MAX_EXPRESSION_DEPTH", position)

    def exceeded(self, limit: str, setting: str, position: int) -> ExpressionSyntaxError:
        """What to raise where the token at `position` is one too many."""
        message = f"the expression has more than {limit} ({PREFIX}{setting})"
        return ExpressionSyntaxError(message, self.text, self.starts[position], self.ends[position])


def _is_name(token: str) -> bool:
    return token[0] == "`" or (token[0] in _LETTERS and token not in RESERVED)


_TERMS: dict[str, Callable[[Grammar, int], Node]] = {
    **dict.fromkeys(_LETTERS, Grammar.boolean),
    **dict.fromkeys("0123456789", Grammar.number),
    **dict.fromkeys("+-", Grammar.sign),
    "'": Grammar.string,
    "(": Grammar.group,
    "{": Grammar.empty,
    "@": Grammar.temporal,
    "$": Grammar.variable,
    "%": Grammar.external_constant,
}
