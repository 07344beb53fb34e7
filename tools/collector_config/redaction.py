"""What may pass the collector, and the statements that let nothing else through.

Attributes pass by name, and by what their values look like; names of spans are made anew out of attributes that passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.analysis.rules import ADVICE
from fhirpath_otel.evaluator.model import load_model
from tools.collector_config.ottl import exactly, path, text, texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fhirpath_otel.semconv import Attribute

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

# What values look like. RE2, as everywhere in the collector.
IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
PLAIN = "[A-Za-z0-9_][A-Za-z0-9_.:/+<>-]{0,127}"
IDENTIFYING = "^[0-9][0-9-]{5,}$|[0-9]{4}-[0-9]{2}-[0-9]{2}"
"""Long numbers, and dates anywhere: what looks like `PLAIN` and is nothing that ran."""

PARAMETER = "[{][A-Za-z0-9_.:*]+[}]|<[A-Za-z0-9_.:]+>|:[A-Za-z0-9_]+|[*]+"
SQL_WORD = (
    "(BATCH )?(ALTER|ANALYZE|ATTACH|BEGIN|CALL|CLOSE|COMMIT|COPY|CREATE|DEALLOCATE|DECLARE|DELETE|DETACH|DROP|EXECUTE"
    "|EXPLAIN|FETCH|GRANT|INSERT|INSTALL|LISTEN|LOAD|LOCK|MERGE|NOTIFY|PRAGMA|PREPARE|RELEASE|REPLACE|REVOKE|ROLLBACK"
    "|SAVEPOINT|SELECT|SET|SHOW|START|TRUNCATE|UPDATE|VACUUM|VALUES|WITH)"
)
TABLE = "[A-Za-z_]+([0-9]{1,3}[A-Za-z_]+)*[0-9]{0,3}"
_SYMBOL = "[][?.,()%$+*/&|<>=~!{}…-]"
_SPACED = f"( |{_SYMBOL})*"
_OPERATOR_WORDS = ("and", "or", "xor", "implies", "div", "mod", "is", "as", "in", "contains")
_OPERATOR_WORD = f"({'|'.join(_OPERATOR_WORDS)})"
# A template of more than 1 kB is cut anywhere.
_BEGUN = "|".join(sorted({word[:end] for word in _OPERATOR_WORDS for end in range(1, len(word) + 1)}))
_BETWEEN = f"({_SPACED}{_SYMBOL}{_SPACED}|{_SPACED} {_OPERATOR_WORD} {_SPACED})"
SHAPES = {
    semconv.EXPRESSION_HASH.name: "^([0-9a-f]{16}|other|unparsable)$",
    # A template has no literal, and between two names a symbol or an operator: it is no sentence.
    semconv.EXPRESSION_TEMPLATE.name: f"^{_SPACED}({IDENTIFIER}({_BETWEEN}{IDENTIFIER})*{_SPACED}( ({_BEGUN}))?)?$",
    semconv.OPERATOR_NAME.name: f"^({IDENTIFIER}|\\[\\]|[?]|[-+*/|&<>=~!]{{1,2}})$",
    semconv.DB_QUERY_SUMMARY.name: f"^({SQL_WORD}|[?])( {TABLE}([.]{TABLE})*){{0,8}}$",
    semconv.DB_OPERATION_NAME.name: f"^({SQL_WORD}|[?])$",
    # Some frameworks give the path where there is no route; what holds a digit may be an id.
    "http.route": f"^(/([A-Za-z_$.-]+|[vVrR][0-9]{{1,2}}|{PARAMETER})?)+$",
    "http.request.method": "^[A-Z_]{1,16}$",
    "http.method": "^[A-Z_]{1,16}$",
}
"""Of the attributes whose values say more than a name; all other texts look like `PLAIN`: no blanks, no `@`."""

NUMBERS = {
    **dict.fromkeys(
        ("db.operation.batch.size", "db.response.returned_rows", "http.response.status_code"), "int"
    ),
    **dict.fromkeys(("http.status_code", "server.port", "net.peer.port", "rpc.grpc.status_code"), "int"),
    **dict.fromkeys(("thread.id", "code.line.number", "code.lineno"), "int"),
    "exception.escaped": "boolean",
}
"""Of `semconv.HARMLESS_ATTRIBUTES` those of others that are no texts."""

DIMENSIONS = '${env:OTELCOL_DIMENSIONS:-"error.type"}'
"""What the setting DIMENSIONS of an application adds to spans and metrics has to be let through by name."""

UNKNOWN_SPAN = "span"
"""What a span is called whose attributes give no name."""

EVENT_ATTRIBUTES = ("exception.type", "exception.escaped")

CLOSED = (
    *(semconv.STAGE, semconv.EXECUTION_MODE, semconv.TIMING, semconv.SAMPLING_REASON),
    *(semconv.BOTTLENECK_RULE, semconv.BOTTLENECK_SEVERITY),
    *(semconv.CACHE_RESULT, semconv.FINDING_RULE, semconv.FINDING_SEVERITY, semconv.FINDING_STAGE),
    *(semconv.DECISION, semconv.DECISION_REASON, semconv.DETAIL, semconv.LOST_WHAT, semconv.LOST_REASON),
)
"""Attributes that have no other values than those listed, whoever makes the spans."""

NOT_ASKED_FOR = semconv.EXPRESSION_TEXT.name
"""Free text: passes only where `DIMENSIONS` names it."""

UNIT = "^[A-Za-z0-9{}/%._*-]{0,64}$"
SCHEMA = "^https://opentelemetry[.]io/schemas/[0-9.]{1,16}$"
SAMPLING_STATE = "^(th|rv):[0-9a-f]{1,14}(;(th|rv):[0-9a-f]{1,14})?$"


def span_attributes() -> list[str]:
    """Every attribute of a span that may pass, with the stages' durations spelt out; ours first."""
    template = semconv.STAGE_DURATION_ATTRIBUTE.name
    own = [name for item in _own_of_spans() for name in _each_stage(item.name)]
    return [*own, *sorted(semconv.HARMLESS_ATTRIBUTES - {template, NOT_ASKED_FOR} - set(own))]


def _own_of_spans() -> list[Attribute]:
    return [item for item in semconv.SPAN_ATTRIBUTES if item.name != NOT_ASKED_FOR]


def point_attributes() -> list[str]:
    """Every attribute of our metrics, and the harmless ones of others'."""
    own = [attribute.name for metric in semconv.METRICS for attribute in metric.attributes]
    return list(dict.fromkeys([*own, *sorted(_foreign())]))


def _foreign() -> set[str]:
    return set(semconv.HARMLESS_ATTRIBUTES) - {attribute.name for attribute in semconv.SPAN_ATTRIBUTES}


def _each_stage(name: str) -> list[str]:
    return [name.replace("{stage}", stage) for stage in semconv.STAGES] if "{stage}" in name else [name]


def _drop_unless(of: str, name: str, shape: str | None = None) -> str:
    """Removes a text that does not look as it should, and whatever is no text."""
    item, pattern = path(of, name), text(shape or SHAPES.get(name, f"^{PLAIN}$"))
    condition = f"IsString({item}) and IsMatch({item}, {pattern})"
    if shape is None and name not in SHAPES and of != "resource":
        condition += f" and not IsMatch({item}, {text(IDENTIFYING)})"
    return _drop(of, name, f"({condition})")


def _one_of(values: Iterable[str]) -> str:
    return f"^({'|'.join(map(exactly, dict.fromkeys(values)))})$"


def _drop_unless_number(of: str, name: str, kind: str) -> str:
    """Removes what is no number, or no truth value."""
    item = path(of, name)
    is_kind = {
        "int": f"IsInt({item})",
        "double": f"(IsDouble({item}) or IsInt({item}))",
        "boolean": f"IsBool({item})",
    }
    return _drop(of, name, is_kind[kind])


def _drop_unless_list(of: str, name: str, one: str) -> str:
    """The same for a list of texts: compared as JSON, since statements cannot walk through a list."""
    item, pattern = path(of, name), text(f'^[[]("({one})",?)+[]]$')
    return _drop(of, name, f"(IsList({item}) and IsMatch(String({item}), {pattern}))")


def _drop(of: str, name: str, condition: str) -> str:
    return f"delete_key({of}.attributes, {text(name)}) where not {condition}"


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
        return _drop_unless_list(of, name, "|".join(map(exactly, semconv.RULES)))
    if item is semconv.BOTTLENECK_ADVICE:
        return _drop_unless_list(of, name, "|".join(map(exactly, ADVICE.values())))
    if item in CLOSED:
        # Two metrics may have different values of the same name.
        return _drop_unless(
            of, name, _one_of(one for same in CLOSED if same.name == name for one in same.values)
        )
    if item is semconv.RESOURCE_TYPE:
        return _drop_unless(of, name, _one_of([*sorted(load_model().type_names()), semconv.OTHER]))
    return _drop_unless(of, name) if item.type == "string" else _drop_unless_number(of, name, item.type)


def _keep(of: str, names: str) -> list[str]:
    """Removes all other attributes, and of a name that comes twice all but the last.

    A sender may say a name twice, and every other statement reads the first one only. A map holds each name once.
    """
    return [
        f"keep_keys({of}.attributes, {names})",
        f'merge_maps({of}.cache, {of}.attributes, "upsert")',
        f"set({of}.attributes, {of}.cache)",
        f"keep_keys({of}.cache, [])",
    ]


def resource_statements() -> list[str]:
    """Resources: attributes by name and value."""
    return [
        *_keep("resource", texts(RESOURCE_ATTRIBUTES)),
        _drop_unless_number("resource", PROCESS_ID, "int"),
        *(
            _drop_unless("resource", name, f"^{semconv.LABEL_PATTERN}$" if name in LABELS else None)
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


def span_statements() -> list[str]:
    """Spans: attributes by name and value, names out of attributes, and nothing of links, states and messages."""
    return [
        *_keep("span", texts(span_attributes(), DIMENSIONS)),
        *_checks("span", _own_of_spans()),
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
    """Names as the conventions make them, out of the attributes that have just been checked."""
    return [
        *(
            f'set(span.cache["name"], {name}) where span.cache["name"] == nil and {condition}'
            for name, condition in _span_names()
        ),
        f'set(span.cache["name"], {text(UNKNOWN_SPAN)}) where span.cache["name"] == nil',
        'set(span.name, span.cache["name"])',
    ]


def _span_names() -> Iterator[tuple[str, str]]:
    """How a span may be called, and when; the first that holds."""
    stage, resource_type = _span(semconv.STAGE), _span(semconv.RESOURCE_TYPE)
    is_evaluation = (
        f"{stage} == nil and ({_span(semconv.EXPRESSION_HASH)} != nil or {_span(semconv.ENGINE_NAME)} != nil)"
    )
    evaluate = semconv.EVALUATE_SPAN.name.removesuffix("{resource type}")
    yield _concat(text(evaluate), resource_type), f"{resource_type} != nil and {is_evaluation}"
    yield text(evaluate.strip()), is_evaluation
    yield from _each_present(_span(semconv.DB_QUERY_SUMMARY), _span(semconv.DB_OPERATION_NAME))
    for item, pattern in (
        (semconv.OPERATOR_NAME, semconv.OPERATOR_SPAN.name),
        (semconv.STAGE, semconv.STAGE_SPAN.name),
    ):
        yield _concat(text(pattern[: pattern.index("{")]), _span(item)), f"{_span(item)} != nil"
    command = text(semconv.COMMAND_SPAN.name)
    yield command, f"span.name == {command}"
    route = path("span", "http.route")
    for method in (path("span", "http.request.method"), path("span", "http.method")):
        yield _concat(method, text(" "), route), f"{method} != nil and {route} != nil"
        yield from _each_present(method)
    service, call = path("span", "rpc.service"), path("span", "rpc.method")
    yield _concat(service, text("/"), call), f"{service} != nil and {call} != nil"


def _span(item: Attribute) -> str:
    return path("span", item.name)


def _concat(*parts: str) -> str:
    return f'Concat([{", ".join(parts)}], "")'


def _each_present(*items: str) -> Iterator[tuple[str, str]]:
    return ((item, f"{item} != nil") for item in items)


def event_statements() -> list[str]:
    """Events: what they are called, and the class of an exception."""
    return [
        f"set(spanevent.name, {text(semconv.OTHER)}) where spanevent.name != {text(semconv.EXCEPTION_EVENT)}",
        *_keep("spanevent", texts(EVENT_ATTRIBUTES)),
        *(_drop_unless("spanevent", name) for name in EVENT_ATTRIBUTES),
    ]


def point_statements() -> list[str]:
    """Data points: attributes by name and value."""
    own = list({item.name: item for metric in semconv.METRICS for item in metric.attributes}.values())
    return [
        *_keep("datapoint", texts(point_attributes(), DIMENSIONS)),
        *_checks("datapoint", own),
    ]


def metric_statements() -> list[str]:
    """Texts of metrics that are not ours; their names are checked by a filter, since a metric needs one."""
    return [
        f'set(metric.description, "") where scope.name != {text(semconv.SCOPE)}',
        f'set(metric.unit, "") where not IsMatch(metric.unit, {text(UNIT)})',
    ]
