"""What the values of attributes look like that may pass the collector. RE2, as everywhere in it.

Most of what runs has names that nobody lists in advance; whatever has a list or a range is held to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.syntax import OPERATOR_LEVELS
from fhirpath_otel.evaluator.template import ENVIRONMENT, known_names, operator_names
from fhirpath_otel.telemetry.redaction import MAX_TEMPLATE_BYTES
from tools.collector_config.ottl import exactly

if TYPE_CHECKING:
    from collections.abc import Iterable


def one_of(values: Iterable[str]) -> str:
    """A pattern for these texts and no others."""
    return f"^({'|'.join(map(exactly, dict.fromkeys(values)))})$"


def _template() -> str:
    """Known names with something between each two; a template has no literal and no name of a user's."""
    operators = [operator for level in OPERATOR_LEVELS for operator in level if operator.isalpha()]
    variables = ("this", "index", "total", *ENVIRONMENT)
    names = "|".join(sorted({*known_names(load_model()), *operators, *variables}))
    between = "[][?.,()%$+*/&|<>=~! -]"
    # The boundary in front is for speed: without it the matcher looks for all names after every symbol. The pattern
    # stands in the configuration for spans and for data points: one anchor for both would need statements whose paths
    # do not name their context, and the collector asks for paths that do.
    return f"^{between}*(\\b({names})({between}+|$))*$"


def _segments(segment: str, separator: str) -> str:
    return f"{segment}({separator}{segment})*"


IDENTIFYING = "^[0-9][0-9-]{5,}$|[0-9]{6}|[0-9]{4}-[0-9]{2}-[0-9]{2}"
"""Long numbers, and dates anywhere: what looks like a name and is none of what ran."""

MAX_CHARACTERS = 128
"""Of every text that passes, unless `MAXIMA` has it."""

MAXIMA = {
    semconv.EXPRESSION_TEMPLATE.name: MAX_TEMPLATE_BYTES,
    semconv.DB_QUERY_SUMMARY.name: 255,
    "http.route": 255,
}

PLAIN = "^[A-Za-z0-9_][A-Za-z0-9_.:/+<>-]*$"
LABEL = f"^{semconv.LABEL_PATTERN}$"
VERSION = (
    "^(semver:)?v?[0-9]{1,5}([.][0-9]{1,5})*"
    "([._-]?(a|b|c|rc|alpha|beta|pre|preview|dev|post|SNAPSHOT|RELEASE|Final)[._-]?[0-9]{0,5})*$"
)
"""Of libraries: numbers, and the words that releases have; nothing local, and no date without points."""

UNIT = "^([0-9]{0,3}[A-Za-z{}/%._*-])*[0-9]{0,3}$"
SCHEMA = "^https://opentelemetry[.]io/schemas/[0-9.]{1,16}$"
SAMPLING_STATE = "^(th|rv):[0-9a-f]{1,14}(;(th|rv):[0-9a-f]{1,14})?$"

_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_$]*"
_QUALIFIED = _segments(f"({_IDENTIFIER}|<[a-z_]+>)", "([./-]|::?)")
"""Of modules, classes and functions, as `pkg.Class`, `java.util.Map$Entry`, `std::bad_alloc`, `main.<lambda>`."""

_GRPC_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"),
    *("UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
_DATABASE_CODE = (
    f"-?[0-9]{{1,5}}|[0-9A-Z]{{2}}[0-9P][0-9][0-9A-Z]|[A-Z]{{2,3}}-[0-9]{{1,5}}|{'|'.join(_GRPC_CODES)}"
)
"""Numbers, SQLSTATE, `ORA-00942`, codes of gRPC."""

_SQL_WORD = (
    "(BATCH )?(ALTER|ANALYZE|ATTACH|BEGIN|CALL|CLOSE|COMMIT|COPY|CREATE|DEALLOCATE|DECLARE|DELETE|DETACH|DROP|EXECUTE"
    "|EXPLAIN|FETCH|GRANT|INSERT|INSTALL|LISTEN|LOAD|LOCK|MERGE|NOTIFY|PRAGMA|PREPARE|RELEASE|REPLACE|REVOKE|ROLLBACK"
    "|SAVEPOINT|SELECT|SET|SHOW|START|TRUNCATE|UPDATE|VACUUM|VALUES|WITH)"
)
_TABLE = _segments("[A-Za-z_]+([0-9]{1,3}[A-Za-z_]+)*[0-9]{0,3}", "[.]")
_PARAMETER = "[{][A-Za-z_.:*]*[0-9]{0,2}[}]|<[A-Za-z_.:]+[0-9]{0,2}>|:[A-Za-z_]+[0-9]{0,2}|[*]+"
_METHOD = one_of(
    (
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"),
        *("COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "REPORT", "SEARCH", "UNLOCK"),
        *("_OTHER", "HTTP"),
    )
)
_SCHEME = one_of(("http", "https", "ws", "wss"))
_SYSTEM = "^[A-Za-z][A-Za-z0-9]*([._-][a-z0-9]+)*$"

CLOSED = (
    *(semconv.STAGE, semconv.EXECUTION_MODE, semconv.TIMING, semconv.SAMPLING_REASON),
    *(semconv.BOTTLENECK_RULE, semconv.BOTTLENECK_SEVERITY),
    *(semconv.CACHE_RESULT, semconv.FINDING_RULE, semconv.FINDING_SEVERITY, semconv.FINDING_STAGE),
    *(semconv.DECISION, semconv.DECISION_REASON, semconv.DETAIL, semconv.LOST_WHAT, semconv.LOST_REASON),
)
"""Attributes that have no other values than those listed, whoever makes the spans."""

SHAPES = {
    # Two metrics may have different values of the same name.
    **{
        item.name: one_of(value for same in CLOSED if same.name == item.name for value in same.values)
        for item in CLOSED
    },
    semconv.EXPRESSION_HASH.name: "^([0-9a-f]{16}|other|unparsable)$",
    semconv.EXPRESSION_TEMPLATE.name: _template(),
    semconv.RESOURCE_TYPE.name: one_of([*sorted(load_model().type_names()), semconv.OTHER]),
    semconv.OPERATOR_NAME.name: one_of(
        [*sorted({*operator_names(load_model()), semconv.PATH, semconv.OTHER, semconv.UNKNOWN})]
    ),
    semconv.ENGINE_VERSION.name: VERSION,
    semconv.FHIR_VERSION.name: "^R?[0-9]{1,2}([.][0-9]{1,3}){0,2}(-[a-z0-9]{1,16})?$",
    semconv.DB_QUERY_SUMMARY.name: f"^({_SQL_WORD}|[?])( {_TABLE}){{0,8}}$",
    semconv.DB_OPERATION_NAME.name: f"^({_SQL_WORD}|[?])$",
    semconv.DB_COLLECTION_NAME.name: f"^{_TABLE}$",
    "db.sql.table": f"^{_TABLE}$",
    "db.response.status_code": f"^({_DATABASE_CODE})$",
    # Some frameworks give the path where there is no route; what holds a digit may be an id.
    "http.route": f"^(/([A-Za-z_$.-]+|[vVrR][0-9]{{1,2}}|{_PARAMETER})?)+$",
    **dict.fromkeys(("http.request.method", "http.method"), _METHOD),
    **dict.fromkeys(("http.scheme", "url.scheme"), _SCHEME),
    "network.protocol.name": one_of(
        (
            *("http", "https", "spdy", "quic", "grpc", "ws", "websocket", "amqp", "mqtt", "kafka", "nats"),
            *("stomp", "redis", "postgresql", "mysql", "dns", "ftp", "smtp", "ldap"),
        )
    ),
    "network.protocol.version": "^[0-9]{1,2}([.][0-9]{1,2}){0,2}$",
    "network.transport": one_of(
        ("tcp", "udp", "quic", "pipe", "unix", "inproc", "ip_tcp", "ip_udp", "other")
    ),
    "network.type": one_of(("ipv4", "ipv6")),
    "rpc.system": one_of(
        (
            *("grpc", "java_rmi", "dotnet_wcf", "apache_dubbo", "connect_rpc", "onc_rpc", "jsonrpc"),
            *("aws-api", "thrift"),
        )
    ),
    "faas.trigger": one_of(("datasource", "http", "pubsub", "timer", "other")),
    "messaging.operation.type": one_of(
        ("create", "send", "receive", "process", "settle", "deliver", "publish")
    ),
}
"""Of attributes whose values have a list or a grammar."""

NAMES = {
    **dict.fromkeys((semconv.ERROR_TYPE.name, "exception.type"), f"^({_QUALIFIED}|{_DATABASE_CODE})$"),
    **dict.fromkeys(
        ("code.function", "code.function.name", "rpc.service", "rpc.method", semconv.ENGINE_NAME.name),
        f"^{_QUALIFIED}$",
    ),
    **dict.fromkeys((semconv.DB_SYSTEM_NAME.name, "db.system", "messaging.system"), _SYSTEM),
    # A number as Redis has, or a database with its schema.
    "db.namespace": "^([0-9]{1,3}|[A-Za-z_][A-Za-z0-9_]*([.|-][A-Za-z0-9_]+)*)$",
    "db.operation": "^[A-Za-z_]+$",
}
"""Of attributes that name what ran, with nothing `IDENTIFYING` in them."""

SCOPE = f"^(@[a-z0-9-]+/)?{_segments(_IDENTIFIER, '[./:-]+')}([./-][0-9]{{1,3}})*$"
"""Of instrumentation scopes: as modules are called, and as packages of npm or Java's releases are."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The whole numbers that an attribute may have; `None` is no limit."""

    least: int = 0
    most: int | None = None


_PORTS, _STATUS = Numbers(1, 65_535), Numbers(100, 599)
LABEL_NUMBERS = {
    "http.response.status_code": _STATUS,
    "http.status_code": _STATUS,
    "rpc.grpc.status_code": Numbers(0, 16),
    "server.port": _PORTS,
    "net.peer.port": _PORTS,
}
"""Of `semconv.HARMLESS_ATTRIBUTES` the numbers of others that may label a data point: they have few values."""

NUMBERS = LABEL_NUMBERS | {
    "code.line.number": Numbers(0, 999_999),
    "code.lineno": Numbers(0, 999_999),
    "db.operation.batch.size": Numbers(),
    "db.response.returned_rows": Numbers(),
    "thread.id": Numbers(),
}
"""Those that a span may have."""

TRUTHS = ("exception.escaped",)
"""Of others that are true or false; as texts, too, which older SDKs send."""
