"""Well-typed expressions for hypothesis, grown along the paths that a population really has.

`seen` walks resources and notes what lies where, with examples of the values; the strategies then go down these paths,
take literals from the examples, and put criteria, logic, comparisons, arithmetic and indexers around them.

An operand that has several items is an error wherever one is required. It is tried where it is sure to be evaluated:
not below `and`, `or`, `implies` and `iif`, not beside what is always empty, as an engine may leave out an operand that
cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from fhirpath_otel.evaluator.model import SYSTEM_TYPES, Model

MOST_EXAMPLES = 12
SCALARS = frozenset(("String", "Boolean", "Integer", "Decimal", "Date"))
NUMBERS = frozenset(("Integer", "Decimal"))
RESERVED = frozenset(("div", "mod", "in", "and", "or", "xor", "implies", "is", "as", "contains"))


@dataclass(slots=True, repr=False)
class Seen:
    """An element that the data has: how a path says it, its type, and what is below it."""

    step: str
    type: str
    many: bool
    choice: bool = False
    children: dict[str, Seen] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """String, Boolean, Integer, Decimal, Date, … or Complex."""
        return SYSTEM_TYPES.get(self.type, "Complex")


@dataclass(frozen=True, slots=True)
class Path:
    """The text of a path from a context, what it leads to, and whether it can have several items there."""

    text: str
    seen: Seen
    many: bool


def seen(resources: Iterable[dict[str, Any]], model: Model) -> list[Seen]:
    """What the resources have, a root for each type."""
    roots: dict[str, Seen] = {}
    for resource in resources:
        name = resource["resourceType"]
        _note(roots.setdefault(name, Seen(name, name, many=False)), resource, model)
    return list(roots.values())


def _note(owner: Seen, value: dict[str, Any], model: Model) -> None:
    for key, below in value.items():
        known = model.json_element(owner.type, key)
        if known is None:
            continue
        element, kind = known
        name = f"`{element.name}`" if element.name in RESERVED else element.name
        step = f"{name}.ofType({kind})" if element.choice else name
        child = owner.children.setdefault(step, Seen(step, kind, element.many, element.choice))
        for one in below if isinstance(below, list) else [below]:
            if isinstance(one, dict):
                _note(child, one, model)
            elif len(child.values) < MOST_EXAMPLES and one not in child.values:
                child.values.append(one)
    for key, companion in value.items():
        if key.startswith("_") and isinstance(companion, dict):
            known = model.json_element(owner.type, key[1:])
            if known is not None and known[0].name in owner.children:
                _note(owner.children[known[0].name], companion, model)


# --- literals


def literal(seen_: Seen) -> st.SearchStrategy[str]:
    """A literal that the element could be compared with: often a value that it has."""
    kind, values = seen_.kind, seen_.values
    if kind == "Boolean":
        return st.sampled_from(["true", "false"])
    if kind == "Date":
        dates = st.sampled_from([str(value) for value in values] or ["2000-01-01"])
        return st.tuples(dates, st.sampled_from([4, 7, 10])).map(lambda pair: "@" + pair[0][: pair[1]])
    if kind in {"Integer", "Decimal"}:
        near = st.sampled_from([Decimal(value) for value in values] or [Decimal(1)])
        steps = st.sampled_from([Decimal(0), Decimal("0.1"), Decimal(1), Decimal("-2.50")])
        return st.tuples(near, steps).map(lambda pair: _number(pair[0] + pair[1]))
    texts = st.sampled_from([str(value) for value in values] or ["x"])
    return st.one_of(texts, st.sampled_from(["", "a", "O'Brien", "\\", "é"])).map(quoted)


def _number(value: Decimal) -> str:
    return f"{value:f}" if value >= 0 else f"({value:f})"


def quoted(text: str) -> str:
    """The text as a FHIRPath string."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return "'" + "".join(escapes.get(character, character) for character in text) + "'"


# --- strategies


@st.composite
def paths(draw: st.DrawFn, context: Seen, depth: int, *, levels: int = 4, strict: bool = False) -> Path:
    """A path from a context, with filters and picks along it while `depth` lasts."""
    path = Path("", context, many=False)
    for _ in range(draw(st.integers(1, levels))):
        if not path.seen.children:
            break
        child = draw(st.sampled_from(list(path.seen.children.values())))
        text = f"{path.text}.{child.step}" if path.text else child.step
        path = Path(text, child, path.many or child.many)
        if depth > 0:
            path = draw(refinements(path, depth, strict=strict))
    return path


@st.composite
def refinements(draw: st.DrawFn, path: Path, depth: int, *, strict: bool) -> Path:
    """The path as it is, filtered, or one item of it."""
    how = draw(st.sampled_from(["", "where", "", "pick", "extension"]))
    if how == "where":
        criterion = draw(criteria(path.seen, depth - 1, strict=strict))
        return replace(path, text=f"{path.text}.where({criterion})")
    if how == "pick":
        return draw(picks(path))
    extension = path.seen.children.get("extension")
    urls = extension.children["url"].values if extension and "url" in extension.children else []
    if how == "extension" and urls:
        text = f"{path.text}.extension({quoted(str(draw(st.sampled_from(urls))))})"
        return Path(text, extension or path.seen, many=True)
    return path


def picks(path: Path) -> st.SearchStrategy[Path]:
    """One item of the path."""
    ways = st.sampled_from([".first()", ".last()", "[0]", "[1]"])
    return ways.map(lambda way: replace(path, text=path.text + way, many=False))


def criteria(context: Seen, depth: int, *, strict: bool = False) -> st.SearchStrategy[str]:
    """A Boolean about one item of the context."""
    if context.kind == "Complex" and context.children:
        return booleans(context, depth, strict=strict)
    return st.one_of(
        comparisons(Path("$this", context, many=False)),
        st.sampled_from(["$index = 0", "$index > 0", "$this.exists()"]),
    )


def descents(context: Seen, kinds: frozenset[str], levels: int = 4) -> list[tuple[Seen, ...]]:
    """The ways from a context down to elements of some kinds."""
    found: list[tuple[Seen, ...]] = []
    for child in context.children.values() if levels else ():
        if child.kind in kinds:
            found.append((child,))
        found.extend((child, *below) for below in descents(child, kinds, levels - 1))
    return found


@st.composite
def scalars(
    draw: st.DrawFn, context: Seen, depth: int, kinds: frozenset[str], *, strict: bool = False
) -> Path:
    """A path to one item of one of the kinds; without `strict` it may turn out to have several."""
    if context.kind in kinds:
        return Path("$this", context, many=False)
    path = Path("", context, many=False)
    for child in draw(st.sampled_from(descents(context, kinds))):
        text = f"{path.text}.{child.step}" if path.text else child.step
        path = Path(text, child, path.many or child.many)
        if depth > 0 and draw(st.integers(0, 2)) == 0:
            refined = draw(refinements(path, depth, strict=strict))
            path = refined if refined.seen is child else path  # an extension would lead elsewhere
    return draw(picks(path)) if path.many and (strict or draw(st.booleans())) else path


@st.composite
def comparisons(draw: st.DrawFn, path: Path) -> str:
    """The item at a path against a literal, or a few."""
    kind, many = path.seen.kind, path.many
    if kind not in SCALARS:
        return f"{path.text}.{draw(st.sampled_from(['exists', 'empty']))}()"
    one = draw(literal(path.seen))
    if kind in {"String", "Integer"} and draw(st.integers(0, 3)) == 0:
        others = " | ".join([one, *draw(st.lists(literal(path.seen), max_size=3))])
        return f"({path.text} contains {one})" if many else f"({path.text} in ({others}))"
    operators = ["=", "!="] if kind == "Boolean" else ["=", "!=", "<", "<=", ">", ">="]
    left = path.text
    if kind in NUMBERS and draw(st.booleans()):
        left = draw(arithmetic(path))
    return f"({left} {draw(st.sampled_from(operators))} {one})"


@st.composite
def pairs(draw: st.DrawFn, context: Seen, depth: int, *, strict: bool) -> str:
    """Two paths to elements of one kind, compared with each other.

    Where one may have several items, the other is plain: beside a path that leads nowhere SQL drops the whole operator.
    """
    depth = depth if strict else 0
    left = draw(scalars(context, depth, SCALARS, strict=strict))
    right = draw(scalars(context, depth, frozenset((left.seen.kind,)), strict=strict))
    operators = ["=", "!="] if left.seen.kind == "Boolean" else ["=", "!=", "<", ">="]
    return f"({left.text} {draw(st.sampled_from(operators))} {right.text})"


@st.composite
def arithmetic(draw: st.DrawFn, path: Path) -> str:
    """A number at a path, computed with."""
    text = path.text
    for _ in range(draw(st.integers(1, 2))):
        operator = draw(st.sampled_from(["+", "-", "*", "/", "div", "mod"]))
        zero = [] if path.many else ["0"]  # what is divided by it cannot matter
        operand = draw(st.sampled_from(["1", "2", "0.5", "3.00", "(-7)", "100", *zero]))
        text = f"({text} {operator} {operand})"
    return f"(-{text})" if draw(st.integers(0, 5)) == 0 else text


@st.composite
def booleans(draw: st.DrawFn, context: Seen, depth: int, *, strict: bool = False) -> str:
    """A Boolean about the context, an item that has children."""
    simple = ["exists", "count", "type", "compare", "compare", "pair"]
    nested = ["exists", "all", "logic", "logic", "iif", "compare", "pair"]
    how = draw(st.sampled_from(nested if depth > 0 else simple))
    if how in {"compare", "pair"} and not descents(context, SCALARS):
        how = "exists"
    if how == "compare":
        return draw(comparisons(draw(scalars(context, depth - 1, SCALARS, strict=strict))))
    if how == "pair":
        return draw(pairs(context, depth - 1, strict=strict))
    if how == "logic":
        operator = draw(st.sampled_from(["and", "or", "xor", "implies"]))
        sides = [draw(booleans(context, depth - 1, strict=True)) for _ in range(draw(st.integers(2, 3)))]
        text = f"({f' {operator} '.join(sides)})"
        return f"{text}.not()" if draw(st.integers(0, 3)) == 0 else text
    if how == "iif":
        three = [draw(booleans(context, depth - 1, strict=True)) for _ in range(draw(st.integers(2, 3)))]
        return f"iif({', '.join(three)})"
    path = draw(paths(context, depth - 1, strict=strict))
    if how == "count":
        return f"({path.text}.count() {draw(st.sampled_from(['=', '>', '<=']))} {draw(st.integers(0, 3))})"
    if how == "all":
        return f"{path.text}.all({draw(criteria(path.seen, depth - 1, strict=strict))})"
    if how == "type" and path.text.endswith(f".ofType({path.seen.type})") and not path.many:
        return f"({path.text.rpartition('.ofType')[0]} is {path.seen.type})"
    if depth > 0 and draw(st.booleans()):
        return f"{path.text}.exists({draw(criteria(path.seen, depth - 1, strict=strict))})"
    return f"{path.text}.{draw(st.sampled_from(['exists', 'empty']))}()"


@st.composite
def numbers(draw: st.DrawFn, context: Seen, depth: int) -> str:
    """A number of the context."""
    if draw(st.integers(0, 3)) == 0 or not descents(context, NUMBERS):
        return f"({draw(paths(context, depth)).text}.count() {draw(st.sampled_from('+-*'))} {draw(st.integers(0, 9))})"
    return draw(arithmetic(draw(scalars(context, depth, NUMBERS))))


@st.composite
def expressions(draw: st.DrawFn, roots: list[Seen]) -> tuple[str, str]:
    """A resource type and an expression over it."""
    root = draw(st.sampled_from(roots))
    depth = draw(st.integers(0, 3))
    how = draw(st.sampled_from(["boolean", "path", "number", "where", "boolean", "iif"]))
    if how == "path":
        return root.type, draw(paths(root, depth, levels=5)).text
    if how == "number":
        return root.type, draw(numbers(root, depth))
    if how == "where":
        path = draw(paths(root, depth))
        return root.type, f"{root.type}.where({draw(booleans(root, depth))}).{path.text}"
    if how == "iif":
        then, otherwise = draw(booleans(root, depth, strict=True)), draw(booleans(root, depth, strict=True))
        return root.type, f"iif({draw(booleans(root, depth))}, {then}, {otherwise})"
    return root.type, draw(booleans(root, depth))
