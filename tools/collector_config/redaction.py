"""What may pass the collector, and the statements that let nothing else through.

Attributes pass by name, and by what their values look like; names of spans are made anew out of attributes that passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.analysis.rules import ADVICE
from fhirpath_otel.telemetry.redaction import MAX_TEMPLATE_BYTES
from tools.collector_config.ottl import exactly, path, text, texts
from tools.collector_config.shapes import (
    IDENTIFYING,
    LABEL,
    LABEL_NUMBERS,
    MAX_CHARACTERS,
    MAXIMA,
    NAMES,
    NUMBERS,
    PLAIN,
    SAMPLING_STATE,
    SCHEMA,
    SCOPE,
    SHAPES,
    TRUTHS,
    UNIT,
    VERSION,
    one_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from fhirpath_otel.semconv import Attribute
    from tools.collector_config.shapes import Numbers

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

DIMENSIONS = '${env:OTELCOL_DIMENSIONS:-"error.type"}'
"""What the setting DIMENSIONS of an application adds to spans and metrics has to be let through by name."""

UNKNOWN_SPAN = "span"
"""What a span is called whose attributes give no name."""

EVENT_ATTRIBUTES = ("exception.type", "exception.escaped")

NOT_ASKED_FOR = semconv.EXPRESSION_TEXT.name
"""Free text: passes only where `DIMENSIONS` names it."""


def span_attributes() -> list[str]:
    """Every attribute of a span that may pass, with the stages' durations spelt out; ours first."""
    template = semconv.STAGE_DURATION_ATTRIBUTE.name
    own = [name for item in _own_of_spans() for name in _each_stage(item.name)]
    return [*own, *sorted(semconv.HARMLESS_ATTRIBUTES - {template, NOT_ASKED_FOR} - set(own))]


def _own_of_spans() -> list[Attribute]:
    return [item for item in semconv.SPAN_ATTRIBUTES if item.name != NOT_ASKED_FOR]


def point_attributes() -> list[str]:
    """Every attribute of our metrics, and the harmless ones of others' that have few values."""
    own = [attribute.name for metric in semconv.METRICS for attribute in metric.attributes]
    return list(dict.fromkeys([*own, *_foreign("datapoint")]))


def _foreign(of: str) -> list[str]:
    """The harmless attributes of others, of a span or of a data point."""
    own = {attribute.name for attribute in semconv.SPAN_ATTRIBUTES}
    no_labels = NUMBERS.keys() - LABEL_NUMBERS if of == "datapoint" else set()
    return sorted(semconv.HARMLESS_ATTRIBUTES - own - no_labels)


def _each_stage(name: str) -> list[str]:
    return [name.replace("{stage}", stage) for stage in semconv.STAGES] if "{stage}" in name else [name]


def _drop_unless(of: str, name: str, pattern: str) -> str:
    """Removes a text that does not look as it should or is too long, and whatever is no text."""
    return _drop(of, name, f"({_is_text(of, name, pattern)})")


def _drop_unless_name(of: str, name: str) -> str:
    """The same for a name, which has neither dates nor long numbers in it."""
    identifying = f"IsMatch({path(of, name)}, {text(IDENTIFYING)})"
    return _drop(of, name, f"({_is_text(of, name, NAMES[name])} and not {identifying})")


def _is_text(of: str, name: str, pattern: str) -> str:
    item, most = path(of, name), MAXIMA.get(name, MAX_CHARACTERS)
    return f"IsString({item}) and Len({item}) <= {most} and IsMatch({item}, {text(pattern)})"


def _drop_unless_within(of: str, name: str, numbers: Numbers) -> str:
    """Removes what is no whole number, or one that the attribute cannot have."""
    item = path(of, name)
    most = "" if numbers.most is None else f" and {item} <= {numbers.most}"
    return _drop(of, name, f"(IsInt({item}) and {item} >= {numbers.least}{most})")


def _drop_unless_truth(of: str, name: str) -> str:
    item = path(of, name)
    return _drop(
        of, name, f'(IsBool({item}) or IsString({item}) and IsMatch({item}, "^([Tt]rue|[Ff]alse)$"))'
    )


def _drop_unless_number(of: str, name: str, kind: str) -> str:
    """Removes what is no number, or no truth value."""
    item = path(of, name)
    is_kind = {
        "int": f"IsInt({item})",
        "double": f"(IsDouble({item}) or IsInt({item}))",
        "boolean": f"IsBool({item})",
    }
    return _drop(of, name, is_kind[kind])


def _drop_unless_list(of: str, name: str, values: Collection[str]) -> str:
    """The same for a list of texts: compared as JSON, since statements cannot walk through a list."""
    item, one, most = path(of, name), "|".join(map(exactly, values)), len(values)
    pattern = text(f'^[[]("({one})",?)+[]]$')
    return _drop(
        of, name, f"(IsList({item}) and Len({item}) <= {most} and IsMatch(String({item}), {pattern}))"
    )


def _drop(of: str, name: str, condition: str) -> str:
    return f"delete_key({of}.attributes, {text(name)}) where not {condition}"


def _checks(of: str, own: Sequence[Attribute]) -> list[str]:
    """What becomes of attributes whose values are not what they should be, of ours and of others'."""
    return [
        *_cut_at_a_name(of),
        *(_check_own(of, item, name) for item in own for name in _each_stage(item.name)),
        *(_check(of, name) for name in _foreign(of)),
    ]


def _cut_at_a_name(of: str) -> list[str]:
    """Takes a name, of which a template may have the beginning only, from the end of one that was cut."""
    item = path(of, semconv.EXPRESSION_TEMPLATE.name)
    is_cut = f"IsString({item}) and Len({item}) == {MAX_TEMPLATE_BYTES}"
    return [f'replace_pattern({item}, "[A-Za-z0-9_]+$", "") where {is_cut}']


def _check_own(of: str, item: Attribute, name: str) -> str:
    if item is semconv.BOTTLENECK_RULES:
        return _drop_unless_list(of, name, semconv.RULES)
    if item is semconv.BOTTLENECK_ADVICE:
        return _drop_unless_list(of, name, ADVICE.values())
    return _check(of, name) if item.type == "string" else _drop_unless_number(of, name, item.type)


def _check(of: str, name: str) -> str:
    """By what is known of the name; one of which nothing is known is an error, and nothing is generated."""
    if name in NUMBERS:
        return _drop_unless_within(of, name, NUMBERS[name])
    if name in TRUTHS:
        return _drop_unless_truth(of, name)
    return _drop_unless(of, name, SHAPES[name]) if name in SHAPES else _drop_unless_name(of, name)


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
            _drop_unless("resource", name, LABEL if name in LABELS else PLAIN)
            for name in RESOURCE_ATTRIBUTES
            if name != PROCESS_ID
        ),
        f'set(resource.schema_url, "") where not IsMatch(resource.schema_url, {text(SCHEMA)})',
    ]


def scope_statements() -> list[str]:
    """Scopes: name and version as libraries have them, no attributes."""
    is_name = (
        f"Len(scope.name) <= {MAX_CHARACTERS} and IsMatch(scope.name, {text(SCOPE)})"
        f" and not IsMatch(scope.name, {text(IDENTIFYING)})"
    )
    is_version = f"Len(scope.version) <= {MAX_CHARACTERS} and IsMatch(scope.version, {text(VERSION)})"
    return [
        "keep_keys(scope.attributes, [])",
        f"set(scope.name, {text(semconv.OTHER)}) where not ({is_name})",
        f'set(scope.version, "") where not ({is_version})',
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
        *(_check("spanevent", name) for name in EVENT_ATTRIBUTES),
    ]


def point_statements() -> list[str]:
    """Data points: attributes by name and value."""
    own = list({item.name: item for metric in semconv.METRICS for item in metric.attributes}.values())
    return [
        *_keep("datapoint", texts(point_attributes(), DIMENSIONS)),
        *_checks("datapoint", own),
    ]


def metric_statements() -> list[str]:
    """Descriptions, of which ours pass, and units; names are checked by a filter, since a metric needs one."""
    meanings = [metric.meaning for metric in semconv.METRICS]
    return [
        f'set(metric.description, "") where not IsMatch(metric.description, {text(one_of(meanings))})',
        f'set(metric.unit, "") where not (Len(metric.unit) <= 64 and IsMatch(metric.unit, {text(UNIT)}))',
    ]
