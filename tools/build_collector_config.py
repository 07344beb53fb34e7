"""Writes what in collector-config/otelcol.yaml follows from the package: what may pass, and the bottleneck rules.

The rest of that file is written by hand. What is written here stands between two comments, `generated: begin` and
`generated: end`; a test fails when they differ.

Usage: python tools/build_collector_config.py
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.analysis.rules import ADVICE
from fhirpath_otel.analysis.thresholds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fhirpath_otel.semconv import Attribute

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "collector-config" / "otelcol.yaml"

RESOURCE_ATTRIBUTES = (
    *("service.name", "service.namespace", "service.version", "service.instance.id"),
    *("deployment.environment.name", "deployment.environment"),
    *("telemetry.sdk.name", "telemetry.sdk.language", "telemetry.sdk.version", "telemetry.auto.version"),
    *("telemetry.distro.name", "telemetry.distro.version"),
    *("host.name", "host.id", "host.arch", "os.type", "container.id", "container.name"),
    *("process.pid", "process.runtime.name", "process.runtime.version"),
    *("k8s.cluster.name", "k8s.namespace.name", "k8s.deployment.name", "k8s.statefulset.name"),
    *("k8s.job.name", "k8s.cronjob.name", "k8s.daemonset.name"),
    *("k8s.node.name", "k8s.pod.name", "k8s.pod.uid", "k8s.container.name"),
    *("cloud.provider", "cloud.platform", "cloud.region", "cloud.availability_zone"),
)
"""Where a process runs and what it is; not its command line, its owner or its directories."""

LABELS = ("service.name", "service.namespace", "deployment.environment.name", "deployment.environment")
"""What people name themselves, with blanks at times."""

PROCESS_ID = "process.pid"

ONE_SPAN_RULES = (semconv.PARSE_DOMINATES, semconv.TYPE_CHECK_DOMINATES, semconv.IN_MEMORY_FALLBACK)
"""The rules that one span decides, in the order of `semconv.RULES`."""

SEVERAL_SPANS_RULES = (semconv.PARSE_REPEATED, semconv.N_PLUS_ONE)
"""The rules about repetition, which only the process that repeats can count."""

# What values look like. RE2, as everywhere in the collector; without backslashes.
IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
PLAIN = "[A-Za-z0-9_][A-Za-z0-9_.:/+<>-]*"
LABEL = "[A-Za-z0-9_][A-Za-z0-9_.:/+ -]*"
PARAMETER = "[{][A-Za-z0-9_.:*]+[}]|<[A-Za-z0-9_.:]+>|:[A-Za-z0-9_]+|[*]+"
SHAPES = {
    semconv.EXPRESSION_HASH.name: "^([0-9a-f]{16}|other|unparsable)$",
    # A template has no literal: no quotes, no back-ticks, no dates, and no number that is not part of a name.
    semconv.EXPRESSION_TEMPLATE.name: "^([^'\"`@0-9]|[A-Za-z_][0-9]+)+$",
    semconv.EXPRESSION_TEXT.name: ".",
    semconv.RESOURCE_TYPE.name: "^[A-Z][A-Za-z]{1,63}$",
    semconv.OPERATOR_NAME.name: f"^({IDENTIFIER}|[[][]]|[?]|[-+*/|&<>=~!]{{1,2}})$",
    semconv.DB_QUERY_SUMMARY.name: f"^([A-Z]+|[?])( {IDENTIFIER}([.]{IDENTIFIER})*)*$",
    semconv.DB_OPERATION_NAME.name: "^([A-Za-z]{1,32}([ _][A-Za-z]{1,32}){0,3}|[?])$",
    # Some frameworks give the path where there is no route; what holds a digit may be an id.
    "http.route": f"^(/([A-Za-z_$.-]+|[vVrR][0-9]{{1,2}}|{PARAMETER})?)+$",
    "http.request.method": "^[A-Z_]{1,16}$",
    "http.method": "^[A-Z_]{1,16}$",
}
"""Of the attributes whose values say more than a name; all other texts look like `PLAIN`: no blanks, no `@`."""

NUMBERS = {
    **dict.fromkeys(("db.operation.batch.size", "db.response.returned_rows", "http.response.status_code"), "int"),
    **dict.fromkeys(("http.status_code", "server.port", "net.peer.port", "rpc.grpc.status_code"), "int"),
    **dict.fromkeys(("thread.id", "code.line.number", "code.lineno"), "int"),
    "exception.escaped": "boolean",
}
"""Of `semconv.HARMLESS_ATTRIBUTES` those of others that are no texts."""

DIMENSIONS = '${env:OTELCOL_DIMENSIONS:-"error.type"}'
"""What the setting DIMENSIONS of an application adds to spans and metrics has to be let through by name."""

EVENT_ATTRIBUTES = ("exception.type", "exception.escaped")

CLOSED = (
    semconv.STAGE,
    semconv.EXECUTION_MODE,
    semconv.TIMING,
    semconv.BOTTLENECK_SEVERITY,
)
"""Attributes that have no other values than those listed, whoever makes the spans."""

def text(value: str) -> str:
    """A literal of OTTL."""
    return json.dumps(value, ensure_ascii=False)


def texts(values: Iterable[str], *more: str) -> str:
    """A list of literals, and of more that are literals already."""
    return "[" + ", ".join([*more, *(text(value) for value in values)]) + "]"


def span_attributes() -> list[str]:
    """Every attribute of a span that may pass, with the stages' durations spelt out; ours first."""
    template = semconv.STAGE_DURATION_ATTRIBUTE.name
    own = [name for item in semconv.SPAN_ATTRIBUTES for name in _each_stage(item.name)]
    return [*own, *sorted(semconv.HARMLESS_ATTRIBUTES - {template} - set(own))]


def point_attributes() -> list[str]:
    """Every attribute of our metrics, and the harmless ones of others'."""
    own = [attribute.name for metric in semconv.METRICS for attribute in metric.attributes]
    return list(dict.fromkeys([*own, *sorted(_foreign())]))


def _foreign() -> set[str]:
    return set(semconv.HARMLESS_ATTRIBUTES) - {attribute.name for attribute in semconv.SPAN_ATTRIBUTES}


def _each_stage(name: str) -> list[str]:
    return [name.replace("{stage}", stage) for stage in semconv.STAGES] if "{stage}" in name else [name]


def _path(of: str, name: str) -> str:
    return f"{of}.attributes[{text(name)}]"


def _drop_unless(of: str, name: str, shape: str | None = None) -> str:
    """Removes a text that does not look as it should, and whatever is no text."""
    path, shape = _path(of, name), text(shape or SHAPES.get(name, f"^{PLAIN}$"))
    return f"delete_key({of}.attributes, {text(name)}) where not (IsString({path}) and IsMatch({path}, {shape}))"


def _drop_unless_number(of: str, name: str, kind: str) -> str:
    """Removes what is no number, or no truth value."""
    path = _path(of, name)
    is_kind = {"int": f"IsInt({path})", "double": f"(IsDouble({path}) or IsInt({path}))", "boolean": f"IsBool({path})"}
    return f"delete_key({of}.attributes, {text(name)}) where not {is_kind[kind]}"


def _drop_unless_list(of: str, name: str, one: str) -> str:
    """The same for a list of texts: compared as JSON, since statements cannot walk through a list."""
    path, shape = _path(of, name), f'^[[]("({one})",?)+[]]$'
    return f"delete_key({of}.attributes, {text(name)}) where not (IsList({path}) and IsMatch(String({path}), {text(shape)}))"


def _exactly(value: str) -> str:
    """A pattern for a text; with classes instead of backslashes, which three languages would unescape."""
    return re.sub(r"[][.?*+(){}|^$\\]", lambda found: f"[{found[0]}]", value)


def _checks(of: str, own: Sequence[Attribute]) -> list[str]:
    """What becomes of attributes whose values are not what they should be, of ours and of others'."""
    return [
        *(_check(of, item, name) for item in own for name in _each_stage(item.name)),
        *(
            _drop_unless_number(of, name, NUMBERS[name]) if name in NUMBERS else _drop_unless(of, name)
            for name in sorted(_foreign())
        ),
    ]


def _check(of: str, item: Attribute, name: str) -> str:
    if item is semconv.BOTTLENECK_RULES:
        return _drop_unless_list(of, name, "[a-z0-9-]+")
    if item is semconv.BOTTLENECK_ADVICE:
        return _drop_unless_list(of, name, "|".join(map(_exactly, ADVICE.values())))
    if item in CLOSED:
        return _drop_unless(of, name, f"^({'|'.join(map(_exactly, item.values))})$")
    return _drop_unless(of, name) if item.type == "string" else _drop_unless_number(of, name, item.type)


def resource_statements() -> list[str]:
    """Resources: attributes by name and value."""
    return [
        f"keep_keys(resource.attributes, {texts(RESOURCE_ATTRIBUTES)})",
        _drop_unless_number("resource", PROCESS_ID, "int"),
        *(
            _drop_unless("resource", name, f"^{LABEL}$" if name in LABELS else None)
            for name in RESOURCE_ATTRIBUTES
            if name != PROCESS_ID
        ),
        f'set(resource.schema_url, "") where not IsMatch(resource.schema_url, {text(SCHEMA)})',
    ]


def scope_statements() -> list[str]:
    """Scopes: name and version as libraries have them, no attributes."""
    name = text(f"^{PLAIN}$")
    return [
        "keep_keys(scope.attributes, [])",
        f"set(scope.name, {text(semconv.OTHER)}) where not IsMatch(scope.name, {name})",
        f'set(scope.version, "") where not IsMatch(scope.version, {name})',
        f'set(scope.schema_url, "") where not IsMatch(scope.schema_url, {text(SCHEMA)})',
    ]


WIDTH = 120
UNIT = "^[A-Za-z0-9{}/%._*-]{0,64}$"
SCHEMA = "^https://opentelemetry[.]io/schemas/[0-9.]{1,16}$"
SAMPLING_STATE = "^(th|rv):[0-9a-f]{1,14}(;(th|rv):[0-9a-f]{1,14})?$"


def span_statements() -> list[str]:
    """Spans: attributes by name and value, names out of attributes, and nothing of links, states and messages."""
    return [
        f"keep_keys(span.attributes, {texts(span_attributes(), DIMENSIONS)})",
        *_checks("span", semconv.SPAN_ATTRIBUTES),
        *_span_name_statements(),
        'set(span.status.message, "")',
        # Only the sampling threshold and its randomness pass, which metrics of spans are weighted by.
        'set(span.trace_state, "") where not IsMatch(span.trace_state["ot"], ' + text(SAMPLING_STATE) + ")",
        'set(span.trace_state, Concat(["ot=", span.trace_state["ot"]], "")) where span.trace_state != ""',
        # Of a link nothing can be removed but all: assigning links to themselves empties the list. Should another
        # version not do so, the next statement fails, and with it the batch.
        "set(span.links, span.links) where Len(span.links) > 0",
        'set(span.links, "links remain") where Len(span.links) > 0',
    ]


def _span_name_statements() -> list[str]:
    """Names are made anew out of the attributes that have just been checked."""

    def attribute(name: str) -> str:
        return _path("span", name)

    candidates: list[tuple[str, str]] = []
    stage = attribute(semconv.STAGE.name)
    operator = attribute(semconv.OPERATOR_NAME.name)
    summary = attribute(semconv.DB_QUERY_SUMMARY.name)
    resource_type = attribute(semconv.RESOURCE_TYPE.name)
    is_evaluation = (
        f"{stage} == nil and ({attribute(semconv.EXPRESSION_HASH.name)} != nil"
        f" or {attribute(semconv.ENGINE_NAME.name)} != nil)"
    )
    evaluate = semconv.EVALUATE_SPAN.name.removesuffix(" {resource type}")
    prefix = semconv.STAGE_SPAN.name.removesuffix("{stage}")
    candidates += [
        (f'Concat([{text(evaluate)}, {resource_type}], " ")', f"{is_evaluation} and {resource_type} != nil"),
        (text(evaluate), is_evaluation),
        (summary, f"{summary} != nil"),
        (f'Concat([{text(prefix)}, {operator}], "")', f"{operator} != nil"),
        (f'Concat([{text(prefix)}, {stage}], "")', f"{stage} != nil"),
        (text(semconv.COMMAND_SPAN.name), f"span.name == {text(semconv.COMMAND_SPAN.name)}"),
    ]
    for method in ("http.request.method", "http.method"):
        path, route = attribute(method), attribute("http.route")
        candidates += [
            (f'Concat([{path}, {route}], " ")', f"{path} != nil and {route} != nil"),
            (path, f"{path} != nil"),
        ]
    rpc = attribute("rpc.service"), attribute("rpc.method")
    candidates += [
        (f'Concat([{rpc[0]}, {rpc[1]}], "/")', f"{rpc[0]} != nil and {rpc[1]} != nil"),
        (attribute("db.operation.name"), f"{attribute('db.operation.name')} != nil"),
        ('"span"', "true"),
    ]
    return [
        *(
            f'set(span.cache["name"], {source}) where span.cache["name"] == nil and ({condition})'
            for source, condition in candidates
        ),
        'set(span.name, span.cache["name"])',
    ]


def event_statements() -> list[str]:
    """Events: what they are called, and the class of an exception."""
    return [
        f"set(spanevent.name, {text(semconv.OTHER)}) where spanevent.name != {text(semconv.EXCEPTION_EVENT)}",
        f"keep_keys(spanevent.attributes, {texts(EVENT_ATTRIBUTES)})",
        *(_drop_unless("spanevent", name) for name in EVENT_ATTRIBUTES),
    ]


def point_statements() -> list[str]:
    """Data points: attributes by name and value."""
    own = list(dict.fromkeys(item for metric in semconv.METRICS for item in metric.attributes))
    return [
        f"keep_keys(datapoint.attributes, {texts(point_attributes(), DIMENSIONS)})",
        *_checks("datapoint", own),
    ]


def rule_statements(thresholds: Thresholds) -> list[str]:
    """The rules about one span, on evaluations of anybody that no recorder has judged."""

    def cached(name: str) -> str:
        return f"span.cache[{text(name)}]"

    least = f"{max(thresholds.floor, 1e-9)!r}"
    seconds = "(span.end_time_unix_nano - span.start_time_unix_nano) / 1000000000.0"
    saved: list[str] = []
    for rule, stage in (
        (semconv.PARSE_DOMINATES, semconv.PARSE),
        (semconv.TYPE_CHECK_DOMINATES, semconv.TYPE_CHECK),
    ):
        spent = f"Double({_path('span', _duration(stage))})"
        known = f"{_path('span', _duration(stage))} != nil"
        saved.append(
            f"set({cached(rule)}, {spent}) where {known} and {cached('seconds')} >= {least}"
            f" and {spent} > {cached('seconds')} * {thresholds.dominating_share!r}"
        )
    in_memory = _path("span", _duration(semconv.IN_MEMORY))
    saved.append(
        f"set({cached(semconv.IN_MEMORY_FALLBACK)}, Double({in_memory}) * {thresholds.in_memory_saving!r})"
        f" where {_path('span', semconv.FALLBACK_POSITION.name)} != nil and {in_memory} != nil"
        f" and {cached('seconds')} >= {least} and Double({in_memory}) > 0.0"
    )
    severity = semconv.BOTTLENECK_SEVERITY.name
    return [
        f"set({cached('seconds')}, {seconds})",
        *(f"set({cached(rule)}, -1.0)" for rule in ONE_SPAN_RULES),
        *saved,
        *(
            f"set({_path('span', severity)}, {text(grade)}) where "
            + " or ".join(f"{cached(rule)} {comparison}" for rule in ONE_SPAN_RULES)
            for grade, comparison in (
                (semconv.INFO, ">= 0.0"),
                (semconv.WARNING, f">= {thresholds.little_saving!r}"),
                (semconv.CRITICAL, f">= {thresholds.great_saving!r}"),
            )
        ),
        *_gravest_first(cached),
        f"set({_path('span', semconv.BOTTLENECK_RULE.name)}, {_path('span', semconv.BOTTLENECK_RULES.name)}[0])"
        f" where {_path('span', severity)} != nil",
    ]


def _duration(stage: str) -> str:
    return semconv.STAGE_DURATION_ATTRIBUTE.name.replace("{stage}", stage)


def _gravest_first(cached: Callable[[str], str]) -> list[str]:
    """Appends the rule that would save most and takes it out, as often as there are rules."""
    statements: list[str] = []
    for rule in ONE_SPAN_RULES * len(ONE_SPAN_RULES):
        others = " and ".join(f"{cached(rule)} >= {cached(other)}" for other in ONE_SPAN_RULES if other != rule)
        most = f"{cached(rule)} >= 0.0 and {others}"
        statements += [
            f"append({_path('span', semconv.BOTTLENECK_RULES.name)}, {text(rule)}) where {most}",
            f"append({_path('span', semconv.BOTTLENECK_ADVICE.name)}, {text(ADVICE[rule])}) where {most}",
            f"set({cached(rule)}, -1.0) where {most}",
        ]
    return statements


def metric_statements() -> list[str]:
    """Texts of metrics that are not ours; their names are checked by a filter, since a metric needs one."""
    return [
        f'set(metric.description, "") where scope.name != {text(semconv.SCOPE)}',
        f'set(metric.unit, "") where not IsMatch(metric.unit, {text(UNIT)})',
    ]


def block(statements: Sequence[str], indent: int) -> str:
    """Statements as a list of YAML, folded; the collector reads `$$` as `$`."""
    lead, rest = " " * indent + "- ", " " * (indent + 2)
    lines: list[str] = []
    for statement in statements:
        escaped = statement.replace("$", "$$").replace("$${env:", "${env:")
        if len(escaped) <= WIDTH - indent - 2:
            lines.append(lead + _scalar(escaped))
            continue
        folded = textwrap.wrap(escaped, WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False)
        lines.append(f"{lead}>-")
        lines += [rest + line for line in folded]
    return "\n".join(lines)


def _scalar(statement: str) -> str:
    """On one line: as it is, unless YAML would take it for something else."""
    quoted = statement.replace("'", "''")
    return f"'{quoted}'" if ": " in statement or " #" in statement else statement


def blocks() -> dict[str, str]:
    """What stands between the comments, by their names."""
    return {
        "resources": block(resource_statements(), 10),
        "scopes": block(scope_statements(), 10),
        "spans": block(span_statements(), 10),
        "events": block(event_statements(), 10),
        "metrics": block(metric_statements(), 10),
        "points": block(point_statements(), 10),
        "rules": block(rule_statements(Thresholds()), 10),
        "versions": "\n".join(
            f"{' ' * 8}- name: {name}\n{' ' * 10}value: {text(value)}"
            for name, value in (
                ("fhirpath.package.version", package_version()),
                ("fhirpath.package.schema_url", semconv.SCHEMA_URL),
            )
        ),
    }


def package_version() -> str:
    """The version of the package, as pyproject.toml has it."""
    found = re.search(r'(?m)^version = "([^"]+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("pyproject.toml has no version")
    return found[1]


def filled(configuration: str) -> str:
    """The configuration with every block as it should be."""
    for name, content in blocks().items():
        marked = re.compile(rf"(?ms)^( *# generated: begin {name}\n).*?^( *# generated: end {name}$)")
        configuration, found = marked.subn(lambda at, inner=content: f"{at[1]}{inner}\n{at[2]}", configuration)
        if found != 1:
            raise ValueError(f"{CONFIGURATION.name} must have one block {name!r}, has {found}")
    return configuration


def main() -> None:
    """Writes the configuration."""
    CONFIGURATION.write_text(filled(CONFIGURATION.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {CONFIGURATION}")


if __name__ == "__main__":
    main()
