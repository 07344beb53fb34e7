"""What to say about a text that is not FHIRPath: what was expected, what was found, and what was probably meant.

Only the failing path comes here, so that the grammar stays free of guesses about what people mean.
"""

# ruff: noqa: S105 (a token is a piece of text here, no password)

from __future__ import annotations

from string import ascii_letters, digits

from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator.lexer import CALENDAR_UNITS, END, RESERVED, excerpt, unquote

OUTERMOST = "an operator or the end of the expression"
"""What the grammar expects after a whole expression."""

_SINGLE_QUOTES = "strings stand in single quotes: 'text'"
_NEGATION = "negation is a function: (…).not()"
_POWER = "powers are a function: power(exponent)"
_EQUIVALENCE = "equivalence is written ~"

# Two tokens, written together, that are one operator in another language.
_PAIRS = {
    "==": "equality is written =",
    "!==": "inequality is written !=",
    "<>": "inequality is written !=",
    "=>": "at least is written >=",
    "=<": "at most is written <=",
    "=~": _EQUIVALENCE,
    "~=": _EQUIVALENCE,
    "~~": _EQUIVALENCE,
    "&&": "write 'and'",
    "||": "write 'or', or | for the union of collections",
    "**": _POWER,
    "..": "one dot joins two names",
}

# What no token of FHIRPath is or begins with.
_CHARACTERS = {
    **dict.fromkeys('"“”„‘’‚«»', _SINGLE_QUOTES),
    **dict.fromkeys("–—−", "minus is written -"),
    **dict.fromkeys(
        "\u00a0\u2007\u202f\u3000\ufeff\v\f", "only spaces, tabs and line breaks may stand between tokens"
    ),
    "!": _NEGATION,
    "^": _POWER,
    "?": "a choice is a function: iif(condition, then, otherwise)",
    ";": "one text holds one expression",
    "#": "comments begin with //",
    "≠": "inequality is written !=",
    "≤": "at most is written <=",
    "≥": "at least is written >=",
    "×": "multiplication is written *",
    "÷": "division is written / or div",
}

_TEMPORAL = "dates and times are written @2015-02-04, @2015-02-04T14:34:28Z or @T14:34"
_LONG = "FHIRPath 2.0.0 has no long integers"
_OPERATOR_WORDS = frozenset(("and", "or", "xor", "implies", "div", "mod", "in", "contains", "is", "as"))
_TOKENS = frozenset(f"{ascii_letters}{digits}_.()[]{{}},=<>+-*/&|~%'`{END}")


def explain(
    text: str, tokens: list[str], starts: list[int], ends: list[int], *, index: int, expected: str
) -> ExpressionSyntaxError:
    """The error for the token at `index`, where the grammar wants what `expected` says."""
    token, start, end = tokens[index], starts[index], ends[index]
    before = tokens[index - 1] if index else ""
    joined = bool(before) and ends[index - 1] == start
    if joined and (meant := _PAIRS.get(before + token)):
        return ExpressionSyntaxError(f"unexpected '{before + token}'; {meant}", text, starts[index - 1], end)
    if token[0] in "'`":
        unquote(text, token, start)  # what is not closed, or has a wrong escape, is the better explanation
    if token.startswith("/*"):
        return ExpressionSyntaxError("no */ closes the comment", text, start, start + 2)
    if token == END and not before:
        return ExpressionSyntaxError("the expression is empty", text, 0)
    if complaint := _no_token(token):
        return ExpressionSyntaxError(complaint, text, start, end)
    if expected == "an expression" and before:
        expected += f" after {_shown(before)}"
    hint = _hint(expected, before, token, tokens[index + 1] if token != END else END, joined)
    message = f"expected {expected}, found {_shown(token)}"
    return ExpressionSyntaxError(f"{message}; {hint}" if hint else message, text, start, end)


def _shown(token: str) -> str:
    if token == END:
        return "the end of the expression"
    return f"the string {excerpt(token[1:-1])}" if token[0] == "'" else excerpt(token)


def _no_token(token: str) -> str | None:
    """What is wrong with a token that FHIRPath does not have."""
    if token[0] == "$" and token not in {"$this", "$index", "$total"}:
        return f"unknown variable {excerpt(token)}; there are $this, $index and $total"
    if token == "@":
        return f"unexpected '@'; {_TEMPORAL}"
    if len(token) > 1 or token in _TOKENS:
        return None
    code = "" if token.isascii() and token.isprintable() else f" (U+{ord(token):04X})"
    hint = _CHARACTERS.get(token)
    return f"unexpected {excerpt(token)}{code}" + (f"; {hint}" if hint else "")


def _hint(expected: str, before: str, token: str, after: str, joined: bool) -> str | None:
    """What was probably meant; `joined` says that nothing stands between the token and the one before."""
    if token in RESERVED and (token in CALENDAR_UNITS or before in {".", "%", "is", "as"}):
        return f"{token} is a reserved word; as a name it is written `{token}`"
    if token == "*" and before == ".":
        return "all children are children()"
    if token == "." and after[0].isdigit():
        return "a decimal begins with a digit: 0.5"
    if before == "{" and token != END:
        return "a collection is written with |: (1 | 2)"
    if before == "not":
        return _NEGATION
    if token[0] == "%" and before != "%":
        return "the remainder of a division is written 'mod'"
    if before[:1] == "'" and joined and token != END:
        return "a quote inside a string is written \\'"
    if before[:1] == "@" and joined:
        return _TEMPORAL
    if before[:1].isdigit() and token[0].isalpha():
        return _LONG if token == "L" and joined else "a unit stands in single quotes: 5 'mg'"
    if token.lower() in _OPERATOR_WORDS and token not in _OPERATOR_WORDS:
        return f"operators are written in lower case: '{token.lower()}'"
    return "it closes nothing" if token in {")", "]", "}"} and expected == OUTERMOST else None
