"""The parser, against `data/syntax_trees.txt` and `data/syntax_errors.txt`, generated trees, and hostile texts."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator import syntax
from fhirpath_otel.evaluator.parser import Limits, parse

DATA = Path(__file__).parent / "data"
DEPTH = Limits().depth

KINDS = {
    syntax.EmptyLiteral: "empty",
    syntax.BooleanLiteral: "boolean",
    syntax.StringLiteral: "string",
    syntax.NumberLiteral: "number",
    syntax.TemporalLiteral: "temporal",
    syntax.QuantityLiteral: "quantity",
    syntax.ExternalConstant: "constant",
    syntax.Variable: "variable",
    syntax.Member: "member",
    syntax.Function: "function",
    syntax.Indexer: "indexer",
    syntax.Sign: "sign",
    syntax.Operation: "operation",
    syntax.TypeOperation: "typeoperation",
}


def read_cases(name: str) -> list[tuple[str, str]]:
    lines = (DATA / name).read_text("utf-8").splitlines()
    lines = [line.replace("⏎", "\n") for line in lines if line and not line.startswith("#")]
    assert all(line.startswith("  ") for line in lines[1::2])
    return [(text, expected[2:]) for text, expected in zip(lines[::2], lines[1::2], strict=True)]


def shown(node: syntax.Node, *, places: bool = True) -> str:
    """The tree as the data file has it; without places, trees of the same shape are equal."""
    place = [f"{node.start}:{node.end}"] if places else []
    below = [shown(child, places=places) for child in syntax.children(node)]
    return f"({' '.join([KINDS[type(node)], *place, *properties(node, places=places), *below])})"


def properties(node: syntax.Node, *, places: bool) -> list[str]:
    if isinstance(node, syntax.Member):
        delimited = ["delimited"] if node.delimited else []
        return [word(node.name) + (f"@{node.name_start}" if places else ""), *delimited]
    if isinstance(node, syntax.Function):
        return [word(node.name) + (f"@{node.name_start}" if places else "")]
    if isinstance(node, syntax.Operation):
        return [node.operator + (f"@{node.operator_start}" if places else "")]
    if isinstance(node, syntax.TypeOperation):
        type_ = node.type_specifier
        place = [f"{type_.start}:{type_.end}"] if places else []
        return [
            node.operator,
            *place,
            type_.name if type_.namespace is None else f"{type_.namespace}|{type_.name}",
        ]
    if isinstance(node, syntax.ExternalConstant):
        return [word(node.name), *(["delimited"] if node.delimited else [])]
    if isinstance(node, syntax.QuantityLiteral):
        return [node.number, repr(node.unit), *(["calendar"] if node.calendar else [])]
    if isinstance(node, (syntax.NumberLiteral, syntax.TemporalLiteral)):
        return [node.text, node.type_name]
    if isinstance(node, syntax.StringLiteral):
        return [repr(node.value)]
    if isinstance(node, syntax.BooleanLiteral):
        return [str(node.value).lower()]
    if isinstance(node, syntax.Variable):
        return [node.name]
    return [node.operator] if isinstance(node, syntax.Sign) else []


def word(name: str) -> str:
    return name if name.isidentifier() or name.startswith("$") else repr(name)


def height(node: syntax.Node) -> int:
    """By recursion, on purpose."""
    return 1 + max(map(height, syntax.children(node)), default=0)


# --- what the grammar has


@pytest.mark.parametrize(("text", "expected"), read_cases("syntax_trees.txt"))
def test_a_text_has_this_tree(text, expected):
    assert shown(parse(text)) == expected


@pytest.mark.parametrize("text", [text for text, _ in read_cases("syntax_trees.txt")])
def test_the_place_of_every_node_holds_its_own_text(text):
    for node in syntax.walk(parse(text)):
        assert shown(parse(text[node.start : node.end]), places=False) == shown(node, places=False)


@pytest.mark.parametrize(("text", "expected"), read_cases("syntax_errors.txt"))
def test_a_mistake_is_told_with_its_place(text, expected):
    with pytest.raises(ExpressionSyntaxError) as caught:
        parse(text)
    error = caught.value
    assert f"{error.start}:{error.end} {error.message}" == expected
    assert error.expression == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the expression is empty at 0"),
        (" \t\r\n", "the expression is empty at 0"),
        ("// nothing", "the expression is empty at 0"),
        (
            "a\u00a0b",
            "unexpected '\\xa0' (U+00A0); only spaces, tabs and line breaks may stand between tokens at 1",
        ),
        (
            "\ufeffa",
            "unexpected '\\ufeff' (U+FEFF); only spaces, tabs and line breaks may stand between tokens at 0",
        ),
        ("a\x1b[0m", "unexpected '\\x1b' (U+001B) at 1"),
        ("a \U0001f600", "unexpected '\U0001f600' (U+1F600) at 2"),
        ("a\0", "U+0000 is no character of FHIR at 1"),
        ("'\0'", "U+0000 is no character of FHIR at 1"),
        ("'é\ud800'", "U+D800 is half of a surrogate pair, no character at 2"),
        ("a\udfff", "U+DFFF is half of a surrogate pair, no character at 1"),
    ],
)
def test_what_cannot_be_seen_is_told_by_its_number(text, expected):
    with pytest.raises(ExpressionSyntaxError) as caught:
        parse(text)
    assert str(caught.value) == expected


def test_nodes_are_keys_by_identity_and_do_not_change():
    first, second = parse("a"), parse("a")
    assert len({first, second, first}) == 2
    with pytest.raises(AttributeError):
        first.start = 1
    assert shown(pickle.loads(pickle.dumps(parse("a.b(1)")))) == shown(parse("a.b(1)"))  # noqa: S301


# --- hostile texts

HOSTILE = {
    "parentheses": ("(" * 100_000, "more than 100 levels of nesting"),
    "ten million characters": ("a" * 10_000_000, "more than 1,000,000 characters"),
    "NUL": ("\0" * 1_000_000, "U+0000 is no character"),
    "surrogates": ("'" + "\udfff" * 900_000, "U+DFFF is half of a surrogate pair"),
    "string": ("'" + "a" * 900_000, "no ' closes the string at 0"),
    "string of escaped quotes": ("'" + "\\'" * 400_000, "no ' closes the string at 0"),
    "string that ends in a backslash": ("'" + "\\" * 900_001, "no ' closes the string at 0"),
    "string of wrong escapes": ("'" + "\\q" * 400_000 + "'", "unknown escape"),
    "backtick": ("a.`" + "\\`" * 400_000, "no ` closes the name in backticks at 2"),
    "comment": ("a /*" + "*" * 900_000, "no */ closes the comment at 2"),
    "comments": ("/**/" * 200_000, "more than 25,000 tokens"),
    "line comments": ("//\n" * 200_000, "more than 25,000 tokens"),
    "white space": (" " * 999_999, "the expression is empty"),
    "path": ("a" + ".a" * 400_000, "more than 100 levels of nesting"),
    "calls": ("a" + ".f()" * 200_000, "more than 100 levels of nesting"),
    "indexers": ("a" + "[0]" * 200_000, "more than 100 levels of nesting"),
    "nested indexers": ("a[" * 400_000, "more than 100 levels of nesting"),
    "nested calls": ("f(" * 400_000, "more than 100 levels of nesting"),
    "nested everything": ("(-a.f(0 + b[" * 50_000, "more than 100 levels of nesting"),
    "signs": ("-" * 900_000 + "1", "more than 100 levels of nesting"),
    "alternating operators": ("a" + " + a - a" * 100_000, "more than 100 levels of nesting"),
    "all levels of operators": ("a or b and c in d = e < f | g + h * (" * 20_000, "more than 100 levels"),
    "types": ("a" + " is B" * 150_000, "more than 100 levels of nesting"),
    "long type": ("a is B" + ".B" * 400_000, "more than 25,000 tokens"),
    "implies": ("a" + " implies a" * 90_000, "more than 25,000 tokens"),
    "union": ("|".join("a" * 400_000), "more than 25,000 tokens"),
    "arguments": ("f(" + ",".join("a" * 400_000), "more than 25,000 tokens"),
    "name": ("$" + "a" * 900_000, "unknown variable '$aaaaaaaaaaaaaaaaaaa…'"),
    "backslashes": ("\\" * 900_000, "unexpected '\\'"),
    "control characters": ("\x01" * 900_000, "unexpected '\\x01'"),
}


@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_gets_a_short_and_precise_error(text, expected):
    with pytest.raises(ExpressionSyntaxError) as caught:
        parse(text)
    message = str(caught.value)
    assert expected in message
    assert len(message) < 200
    assert message.isprintable()


@pytest.mark.parametrize(
    ("limits", "accepted", "refused", "setting", "place"),
    [
        (Limits(length=3), "a.b", "a.b ", "MAX_EXPRESSION_LENGTH", 3),
        (Limits(tokens=3), "a + b", "a + b + c", "MAX_EXPRESSION_TOKENS", 6),
        (Limits(tokens=3), " a . b ", "a.b )", "MAX_EXPRESSION_TOKENS", 4),
        (Limits(tokens=3), "a /* 1 */ // 2", "a /* 1 */ /* 2 */ // 3", "MAX_EXPRESSION_TOKENS", 18),
        (Limits(depth=3), "a.b.c", "a.b.c.d", "MAX_EXPRESSION_DEPTH", 6),
        (Limits(depth=3), "--1", "---1", "MAX_EXPRESSION_DEPTH", 3),
        (Limits(depth=3), "(((a)))", "((((a))))", "MAX_EXPRESSION_DEPTH", 4),
        (Limits(depth=3), "f(g(a))", "f(g(a.b))", "MAX_EXPRESSION_DEPTH", 8),
        (Limits(depth=3), "a[b[0]]", "a[b[c[0]]]", "MAX_EXPRESSION_DEPTH", 9),
        (Limits(depth=3), "a[0][0]", "a[0][0][0]", "MAX_EXPRESSION_DEPTH", 9),
        (Limits(depth=3), "a + b - c", "a + b - c + d", "MAX_EXPRESSION_DEPTH", 12),
        (Limits(depth=3), "a is B is C", "a is B is C is D", "MAX_EXPRESSION_DEPTH", 15),
        (Limits(depth=3), "(a is B).c", "(a is B).c.d", "MAX_EXPRESSION_DEPTH", 11),
    ],
)
def test_an_exceeded_limit_names_its_setting_and_the_first_token_too_many(
    limits, accepted, refused, setting, place
):
    assert height(parse(accepted, limits)) <= limits.depth
    with pytest.raises(ExpressionSyntaxError, match=f"OTEL_PYTHON_FHIRPATH_{setting}") as caught:
        parse(refused, limits)
    assert caught.value.start == place


def test_the_first_error_of_the_text_is_told_not_the_limit_behind_it():
    with pytest.raises(ExpressionSyntaxError, match="one dot joins two names at 1"):
        parse("a..b" + " + b" * 25_000)


def test_a_long_list_of_codes_is_honest():
    codes = " | ".join(f"'{number:05}-{number % 10}'" for number in range(5_000))
    tree = parse(f"Observation.where(code in ({codes})).exists()")
    assert max(len(syntax.children(node)) for node in syntax.walk(tree)) == 5_000
    assert height(tree) <= 5


def test_a_caller_deep_in_its_own_calls_gets_an_error_of_ours():
    def at_depth(calls):
        return at_depth(calls - 1) if calls else parse("(" * 90 + "a" + ")" * 90)

    free = sys.getrecursionlimit() - len(list(frames()))
    with pytest.raises(ExpressionSyntaxError, match="deeper than the rest of this thread's stack allows"):
        at_depth(free - 50)


def frames() -> Iterator[object]:
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back


# --- any text, any tree

# fmt: off
FRAGMENTS = [
    "a", "name", "contains", "as", "is", "in", "and", "or", "div", "true", "day", "$this", "$index", "%x", "%vs-a",
    "`b c`", "'text'", "1", "2.5", "4", "@2015", "@T10:00", ".", "(", ")", "[", "]", "{", "}", ",", "+", "-", "*", "/",
    "&", "|", "=", "!=", "~", "!~", "<", "<=", ">", ">=", "%", "@", "'", "`", "\\", "\\'", "/*", "*/", "//", "\n",
    "==", "é", "\ud800", " ",
]
# fmt: on
@given(
    st.text(st.characters(exclude_categories=[]))
    | st.lists(st.sampled_from(FRAGMENTS)).map("".join)
    | st.lists(st.sampled_from(FRAGMENTS)).map(" ".join)
)
def test_any_text_is_parsed_or_refused_with_a_place_in_it(text):
    try:
        tree = parse(text)
    except ExpressionSyntaxError as caught:
        error = caught
    else:
        assert height(tree) <= DEPTH
        for node in syntax.walk(tree):
            assert all(node.start <= child.start < child.end <= node.end for child in syntax.children(node))
        return
    assert 0 <= error.start <= len(text)
    assert error.start < error.end <= len(text) + 1
    assert error.message.isprintable()


LEVELS = [
    ["implies"],
    ["or", "xor"],
    ["and"],
    ["in", "contains"],
    ["=", "~", "!=", "!~"],
    ["<=", "<", ">", ">="],
    ["|"],
    ["is", "as"],
    ["+", "-", "&"],
    ["*", "/", "div", "mod"],
]
BINDING = {operator: level for level, operators in enumerate(LEVELS) for operator in operators}
SIGN, TERM = len(LEVELS), len(LEVELS) + 1

PLAIN_NAMES = ["a", "name", "_x1", "L", "contains", "as", "in", "is"]

contents = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
numbers = st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,9})?", fullmatch=True)
plain_names = st.sampled_from(PLAIN_NAMES)
temporals = st.sampled_from(
    [("2015-02", "Date"), ("2015T", "DateTime"), ("2015-02-04T14:34:28.1Z", "DateTime"), ("14:34", "Time")]
)
leaves = st.one_of(
    st.just(syntax.EmptyLiteral(0, 0)),
    st.booleans().map(lambda value: syntax.BooleanLiteral(0, 0, value)),
    contents.map(lambda value: syntax.StringLiteral(0, 0, value)),
    numbers.map(lambda text: syntax.NumberLiteral(0, 0, text, "Decimal" if "." in text else "Integer")),
    temporals.map(lambda pair: syntax.TemporalLiteral(0, 0, *pair)),
    st.builds(syntax.QuantityLiteral, st.just(0), st.just(0), numbers, contents, st.just(False)),
    st.builds(
        syntax.QuantityLiteral,
        st.just(0),
        st.just(0),
        numbers,
        st.sampled_from(["day", "weeks"]),
        st.just(True),
    ),
    st.sampled_from(["$this", "$index", "$total"]).map(lambda name: syntax.Variable(0, 0, name)),
    plain_names.map(lambda name: syntax.ExternalConstant(0, 0, name, False)),
    contents.map(lambda name: syntax.ExternalConstant(0, 0, name, True)),
    plain_names.map(lambda name: syntax.Member(0, 0, None, name, 0)),
    contents.map(lambda name: syntax.Member(0, 0, None, name, 0, True)),
)


def larger(trees: st.SearchStrategy[syntax.Node]) -> st.SearchStrategy[syntax.Node]:
    zero = st.just(0)
    arguments = st.lists(trees, max_size=3).map(tuple)
    operands = st.lists(trees, min_size=2, max_size=4).map(tuple)
    operators = st.sampled_from([operator for operator in BINDING if operator not in {"is", "as"}])
    types = st.builds(syntax.TypeSpecifier, zero, zero, st.none() | st.just("FHIR"), plain_names)
    return st.one_of(
        st.builds(syntax.Member, zero, zero, trees, plain_names, zero),
        st.builds(syntax.Member, zero, zero, trees, contents, zero, st.just(True)),
        st.builds(syntax.Function, zero, zero, st.none() | trees, plain_names | contents, zero, arguments),
        st.builds(syntax.Indexer, zero, zero, trees, trees),
        st.builds(syntax.Sign, zero, zero, st.sampled_from("+-"), trees),
        st.builds(syntax.Operation, zero, zero, operators, operands, zero),
        st.builds(syntax.TypeOperation, zero, zero, st.sampled_from(["is", "as"]), trees, types),
    )


def tokens(node: syntax.Node) -> Iterator[str]:
    """The tokens that a tree is written with, and no parentheses but those it needs."""
    if isinstance(node, (syntax.Member, syntax.Function)):
        if node.input is not None:
            yield from operand(node.input, TERM)
            yield "."
        delimited = node.delimited if isinstance(node, syntax.Member) else node.name not in PLAIN_NAMES
        yield quoted(node.name, "`") if delimited else node.name
    if isinstance(node, syntax.Function):
        yield "("
        for index, argument in enumerate(node.arguments):
            yield from [","] * (index > 0)
            yield from tokens(argument)
        yield ")"
    elif isinstance(node, syntax.Indexer):
        yield from [*operand(node.input, TERM), "[", *tokens(node.index), "]"]
    elif isinstance(node, syntax.Sign):
        yield from [node.operator, *operand(node.operand, SIGN)]
    elif isinstance(node, syntax.Operation):
        level = BINDING[node.operator]
        first = node.operands[0]
        same = isinstance(first, syntax.Operation) and first.operator == node.operator
        yield from operand(first, level + same)
        for other in node.operands[1:]:
            yield from [node.operator, *operand(other, level + 1)]
    elif isinstance(node, syntax.TypeOperation):
        yield from [*operand(node.operand, BINDING["is"]), node.operator]
        specifier = node.type_specifier
        yield from (
            [specifier.name] if specifier.namespace is None else [specifier.namespace, ".", specifier.name]
        )
    elif not isinstance(node, syntax.Member):
        yield from literal(node)


def operand(node: syntax.Node, level: int) -> list[str]:
    own = TERM
    if isinstance(node, (syntax.Operation, syntax.TypeOperation)):
        own = BINDING[node.operator]
    elif isinstance(node, syntax.Sign):
        own = SIGN
    return [*tokens(node)] if own >= level else ["(", *tokens(node), ")"]


def literal(node: syntax.Node) -> list[str]:
    if isinstance(node, syntax.EmptyLiteral):
        return ["{", "}"]
    if isinstance(node, syntax.BooleanLiteral):
        return [str(node.value).lower()]
    if isinstance(node, syntax.StringLiteral):
        return [quoted(node.value, "'")]
    if isinstance(node, syntax.NumberLiteral):
        return [node.text]
    if isinstance(node, syntax.TemporalLiteral):
        return [("@T" if node.type_name == "Time" else "@") + node.text]
    if isinstance(node, syntax.QuantityLiteral):
        return [node.number, node.unit if node.calendar else quoted(node.unit, "'")]
    if isinstance(node, syntax.ExternalConstant):
        return ["%", quoted(node.name, "'`"[len(node.name) % 2]) if node.delimited else node.name]
    assert isinstance(node, syntax.Variable)
    return [node.name]


def quoted(value: str, quote: str) -> str:
    escapes = {"\\": "\\\\", quote: f"\\{quote}", "\n": "\\n", "/": "\\/", "€": "\\u20ac"}
    return quote + "".join(escapes.get(character, character) for character in value) + quote


@given(st.recursive(leaves, larger, max_leaves=25), st.data())
def test_a_tree_that_is_written_and_parsed_is_the_same(tree, data):
    gaps = st.sampled_from([" ", "\n", "\t ", " /* ' ) */", " // ` (\n"])
    text = "".join(token + data.draw(gaps) for token in tokens(tree))
    assert shown(parse(text), places=False) == shown(tree, places=False)
