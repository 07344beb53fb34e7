"""Every span, attribute and metric name that this package emits, once.

`docs/telemetry.md` is generated from these tables (`tools/generate_docs.py`), and no other module spells a name.
Names follow OpenTelemetry's semantic conventions; `db.*` and `error.type` are its stable ones.
"""

from __future__ import annotations

from dataclasses import dataclass

SCOPE = "fhirpath_otel"

EVALUATOR_SCOPES = (SCOPE, f"{SCOPE}.fhirpathpy", f"{SCOPE}.fhir4ds")
"""The instrumentation scopes whose spans are evaluations': ours, and those of evaluators that we instrument."""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.33.0"
"""The release of the semantic conventions that our `db.*` and `error.type` follow."""

SERVICE_NAME = "service.name"

LABEL_PATTERN = "[A-Za-z0-9_][A-Za-z0-9_.:/+ -]{0,127}"
"""What names that people give (`service.name`, environments) have to look like to pass the bundled collector; RE2."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of spans (`on` says which) or of metrics. `values` lists them where there are few."""

    name: str
    type: str
    meaning: str
    on: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A span; `name` is a pattern, with what varies in braces."""

    name: str
    kind: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; `boundaries` are a histogram's bucket boundaries, given to the SDK as advice."""

    name: str
    instrument: str
    unit: str
    meaning: str
    attributes: tuple[Attribute, ...] = ()
    boundaries: tuple[float, ...] = ()


# Stages of an evaluation
PARSE = "parse"
TYPE_CHECK = "type_check"
COLLECTION = "collection"
SQL = "sql"
IN_MEMORY = "in_memory"
STAGES = (PARSE, TYPE_CHECK, COLLECTION, SQL, IN_MEMORY)
COMPILATION = (PARSE, TYPE_CHECK, COLLECTION)

# How much of an evaluation is recorded, from the least to the most; `auto` leaves it to the governor
OFF = "off"
COUNTED = "counted"
BASIC = "basic"
STAGE_DETAIL = "stages"
OPERATOR_DETAIL = "operators"
DETAILS = (OFF, BASIC, STAGE_DETAIL, OPERATOR_DETAIL)
AUTO = "auto"

# How an evaluation was executed
PUSHDOWN = "pushdown"

# What telemetry shows instead of an expression's hash
OTHER = "other"
UNPARSABLE = "unparsable"

# What telemetry shows instead of an operator's name
PATH = "path"
INDEXER = "[]"
UNKNOWN = "?"

# How the times of a span came about
ATTRIBUTED = "attributed"

# Bottleneck rules
PARSE_DOMINATES = "parse-dominates"
TYPE_CHECK_DOMINATES = "type-check-dominates"
IN_MEMORY_FALLBACK = "in-memory-fallback"
PARSE_REPEATED = "parse-repeated"
N_PLUS_ONE = "n-plus-one"
RULES = (PARSE_DOMINATES, TYPE_CHECK_DOMINATES, IN_MEMORY_FALLBACK, PARSE_REPEATED, N_PLUS_ONE)

# How grave a bottleneck is
INFO = "info"
WARNING = "warning"
CRITICAL = "critical"
SEVERITIES = (INFO, WARNING, CRITICAL)

DEBUG_BAGGAGE = "fhirpath.debug"
"""With this entry of the caller's baggage at `true` the trace is kept."""

# Why a trace was kept
FORCED = "forced"
ERROR = "error"
BOTTLENECK = "bottleneck"
SLOW = "slow"
FIRST_SIGHTING = "first_sighting"
BASELINE = "baseline"
REASONS = (FORCED, ERROR, BOTTLENECK, SLOW, FIRST_SIGHTING, BASELINE)

# Why it was not, beside a reason whose rate was used up
NOT_SELECTED = "not_selected"
UNSAMPLED_PARENT = "unsampled_parent"
HOST_SAMPLER = "host_sampler"
NO_SDK = "no_sdk"
SWITCHED_OFF = "switched_off"

# What became of a trace
KEPT = "kept"
SUPPRESSED = "suppressed"
DROPPED = "dropped"

# What of ours was lost, and why
WHAT_EVALUATION = "evaluation"
WHAT_SPAN = "span"
WHAT_METRIC = "metric"
WHAT_FINDING = "finding"
WHAT_DRIVER_SPAN = "driver_span"
WHAT_POLICY = "policy"
WHAT_MEMORY = "memory"
INTERNAL_ERROR = "internal_error"
NOT_FINISHED = "not_finished"
EXPORT_FAILED = "export_failed"
QUEUE_FULL = "queue_full"
SHUT_DOWN = "shut_down"
FILE_ROTATED = "file_rotated"
FILE_ERROR = "file_error"
TOO_OLD = "too_old"
TOO_MANY_TRACES = "too_many_traces"
TOO_MANY_SPANS = "too_many_spans"
TOO_MANY_BYTES = "too_many_bytes"
ENDED_TWICE = "ended_twice"
UNDECIDED = "undecided"
EVALUATION_DROPPED = "evaluation_dropped"
NOT_LOADED = "not_loaded"
LIMIT = "limit"

EVALUATE_SPAN = Span(
    "fhirpath evaluate {resource type}",
    "INTERNAL",
    "One per evaluation; child of whatever span is current when the evaluation begins. Without a known resource"
    " type: `fhirpath evaluate`.",
)
STAGE_SPAN = Span(
    "fhirpath {stage}", "INTERNAL", "The stages `parse`, `type_check`, `collection` and `in_memory`."
)
SQL_SPAN = Span(
    "{db.query.summary}",
    "INTERNAL (DuckDB, in this process), CLIENT (a database server)",
    "The stage `sql`, for example `SELECT Patient`. Ends when the result is exhausted or closed.",
)
OPERATOR_SPAN = Span(
    "fhirpath {operator}",
    "INTERNAL",
    "An operator of the expression, for example `fhirpath where`, in evaluations of the level `operators`; child of the"
    " stage that evaluated. All its calls are one span.",
)
COMMAND_SPAN = Span(
    "fhirpath-otel evaluate",
    "INTERNAL",
    "Around several expressions of one command line, so that they share a trace.",
)
SPANS = (EVALUATE_SPAN, STAGE_SPAN, SQL_SPAN, OPERATOR_SPAN, COMMAND_SPAN)

STAGE = Attribute("fhirpath.stage", "string", "The stage.", "stages", STAGES)
EXPRESSION_TEMPLATE = Attribute(
    "fhirpath.expression.template",
    "string",
    "The expression with every literal, and every name that is neither the model's nor a function's, replaced by"
    " `?`; at most 1 kB. Absent for text that cannot be parsed.",
    "root",
)
EXPRESSION_HASH = Attribute(
    "fhirpath.expression.hash",
    "string",
    "16 hexadecimal digits of SHA-256 of the template; of the text where it cannot be parsed. On metrics `other`"
    " beyond `MAX_EXPRESSIONS` and `unparsable` without a template.",
    "root",
)
EXPRESSION_TEXT = Attribute(
    "fhirpath.expression.text",
    "string",
    "The expression itself, only with `CAPTURE_EXPRESSION=full`; at most 16,384 characters.",
    "root",
)
ENGINE_NAME = Attribute(
    "fhirpath.engine.name", "string", "The engine that evaluated.", "root", ("fhirpath_otel", "fhirpathpy")
)
ENGINE_VERSION = Attribute("fhirpath.engine.version", "string", "The engine's version.", "root")
FHIR_VERSION = Attribute("fhirpath.fhir.version", "string", "The version of FHIR.", "root", ("4.0.1",))
RESOURCE_TYPE = Attribute(
    "fhirpath.resource.type", "string", "The FHIR resource type that was evaluated.", "root"
)
EXECUTION_MODE = Attribute(
    "fhirpath.execution.mode",
    "string",
    "Evaluated by the database, or in memory.",
    "root",
    (PUSHDOWN, IN_MEMORY),
)
RESULT_COUNT_ATTRIBUTE = Attribute("fhirpath.result.count", "int", "Items in the result.", "root")
CACHE_HIT = Attribute(
    "fhirpath.cache.hit", "boolean", "The expression came from the parser's cache.", "root, parse"
)
STAGE_DURATION_ATTRIBUTE = Attribute(
    "fhirpath.stage.{stage}.duration",
    "double",
    "Seconds the stage was active, so that one span tells the breakdown.",
    "root",
)
BOTTLENECK_RULE = Attribute(
    "fhirpath.bottleneck.rule", "string", "The rule of the gravest finding.", "root, with findings", RULES
)
BOTTLENECK_RULES = Attribute(
    "fhirpath.bottleneck.rules",
    "string[]",
    "The rules of all findings, the gravest first.",
    "root, with findings",
)
BOTTLENECK_SEVERITY = Attribute(
    "fhirpath.bottleneck.severity", "string", "Of the gravest finding.", "root, with findings", SEVERITIES
)
BOTTLENECK_ADVICE = Attribute(
    "fhirpath.bottleneck.advice",
    "string[]",
    "What to do about each of `fhirpath.bottleneck.rules`: static text.",
    "root, with findings",
)
MEMORY_RSS_DELTA = Attribute(
    "fhirpath.memory.rss.delta",
    "int",
    "Bytes by which the process's resident memory was larger at the end of the evaluation than at its beginning.",
    "root, from 50 ms on",
)
MEMORY_RSS_PEAK = Attribute(
    "fhirpath.memory.rss.peak",
    "int",
    "Bytes of the process's resident memory at the most, as seen every 10 ms while the evaluation ran.",
    "root, from 50 ms on",
)
MEMORY_RSS_GROWTH = Attribute(
    "fhirpath.memory.rss.growth",
    "int",
    "Sum of `fhirpath.memory.rss.delta` over the last 20 long evaluations of the expression; from two on.",
    "root, from 50 ms on",
)
DATABASE_MEMORY_PEAK = Attribute(
    "fhirpath.database.memory.peak",
    "int",
    "Bytes that the embedded database held in memory at the most, by its own account, as asked while the evaluation"
    " ran.",
    "root, from 50 ms on",
)
DATABASE_TEMP_PEAK = Attribute(
    "fhirpath.database.temp.peak",
    "int",
    "Bytes that the embedded database held in temporary files at the most, as asked while the evaluation ran.",
    "root, from 50 ms on",
)
SAMPLING_REASON = Attribute("fhirpath.sampling.reason", "string", "Why this trace was kept.", "root", REASONS)
ADJUSTED_COUNT = Attribute(
    "fhirpath.sampling.adjusted_count",
    "double",
    "How many evaluations this trace stands for; the sum over all traces estimates all evaluations.",
    "root",
)
FALLBACK_POSITION = Attribute(
    "fhirpath.fallback.position",
    "int",
    "Where in the expression stands what SQL cannot express, if it was evaluated in memory because of that.",
    "root",
)
FALLBACK_LENGTH = Attribute("fhirpath.fallback.length", "int", "The length of that place.", "root")
ERROR_TYPE = Attribute(
    "error.type",
    "string",
    "The class of an error, or our code for it; never a message, which can carry values.",
    "root and the stage that failed",
)
DB_SYSTEM_NAME = Attribute("db.system.name", "string", "The database.", "SQL", ("duckdb", "postgresql"))
DB_QUERY_SUMMARY = Attribute("db.query.summary", "string", "Operation and collection.", "SQL")
DB_OPERATION_NAME = Attribute("db.operation.name", "string", "The operation.", "SQL", ("SELECT",))
DB_COLLECTION_NAME = Attribute("db.collection.name", "string", "The resource type.", "SQL")

TIMING = Attribute(
    "fhirpath.timing",
    "string",
    "`attributed`: the span's length is a sum over all calls, and its place within its parent says nothing.",
    "operators",
    (ATTRIBUTED,),
)
OPERATOR_NAME = Attribute(
    "fhirpath.operator.name",
    "string",
    "The name of a function, keyword or element, a symbol, `[]` for an index, `?` for any other name; `other` for the"
    " rest of many. On metrics `path` for every step of a path, and `other` beyond 120 attribute sets.",
    "operators",
)
OPERATOR_POSITION = Attribute(
    "fhirpath.operator.position",
    "int",
    "Where its name or symbol begins in the expression: 0-based, in characters. Absent where that is not known.",
    "operators",
)
OPERATOR_LENGTH = Attribute(
    "fhirpath.operator.length", "int", "Characters of its name or symbol.", "operators"
)
OPERATOR_CALLS = Attribute(
    "fhirpath.operator.calls", "int", "How often it was evaluated, over all resources.", "operators"
)
OPERATOR_INPUT_COUNT = Attribute(
    "fhirpath.operator.input.count",
    "int",
    "Items that it was applied to in all calls: of `a + b` those of both sides, without a function's arguments.",
    "operators",
)
OPERATOR_OUTPUT_COUNT = Attribute(
    "fhirpath.operator.output.count", "int", "Items that it gave in all calls.", "operators"
)

SPAN_ATTRIBUTES = (
    STAGE,
    EXPRESSION_TEMPLATE,
    EXPRESSION_HASH,
    EXPRESSION_TEXT,
    ENGINE_NAME,
    ENGINE_VERSION,
    FHIR_VERSION,
    RESOURCE_TYPE,
    EXECUTION_MODE,
    RESULT_COUNT_ATTRIBUTE,
    CACHE_HIT,
    FALLBACK_POSITION,
    FALLBACK_LENGTH,
    STAGE_DURATION_ATTRIBUTE,
    BOTTLENECK_RULE,
    BOTTLENECK_RULES,
    BOTTLENECK_SEVERITY,
    BOTTLENECK_ADVICE,
    MEMORY_RSS_DELTA,
    MEMORY_RSS_PEAK,
    MEMORY_RSS_GROWTH,
    DATABASE_MEMORY_PEAK,
    DATABASE_TEMP_PEAK,
    SAMPLING_REASON,
    ADJUSTED_COUNT,
    ERROR_TYPE,
    DB_SYSTEM_NAME,
    DB_QUERY_SUMMARY,
    DB_OPERATION_NAME,
    DB_COLLECTION_NAME,
    TIMING,
    OPERATOR_NAME,
    OPERATOR_POSITION,
    OPERATOR_LENGTH,
    OPERATOR_CALLS,
    OPERATOR_INPUT_COUNT,
    OPERATOR_OUTPUT_COUNT,
)

TELLING_PREFIXES = ("fhirpath.", "db.")
"""What the rules know something about."""

# Attributes of other instrumentations' spans that are read here, and never passed on
STATEMENT_TEXTS = ("db.query.text", "db.statement")

HARMLESS_ATTRIBUTES = frozenset(
    {
        *(attribute.name for attribute in SPAN_ATTRIBUTES),
        *("db.system", "db.operation", "db.namespace", "db.response.status_code", "db.operation.batch.size"),
        *("db.response.returned_rows", "db.sql.table", "exception.type", "exception.escaped"),
        *(
            "http.request.method",
            "http.response.status_code",
            "http.route",
            "http.method",
            "http.status_code",
        ),
        *(
            "http.scheme",
            "url.scheme",
            "network.protocol.name",
            "network.protocol.version",
            "network.transport",
        ),
        *("network.type", "server.port", "net.peer.port", "rpc.system", "rpc.service", "rpc.method"),
        *("rpc.grpc.status_code", "messaging.system", "messaging.operation.type", "faas.trigger"),
        *("thread.id", "code.function.name", "code.line.number", "code.function", "code.lineno"),
    }
)
"""What other instrumentations' spans keep with `STRIP_FOREIGN=on`: names and numbers that carry no data."""

EXCEPTION_EVENT = "exception"

CACHE_RESULT = Attribute("result", "string", "Whether the cache had the expression.", values=("hit", "miss"))
FINDING_RULE = Attribute("rule", "string", "The bottleneck rule.", values=RULES)
FINDING_SEVERITY = Attribute(
    "severity", "string", "By what mending it would save; `info` is little.", values=SEVERITIES
)
FINDING_STAGE = Attribute("stage", "string", "The stage that the finding is about.", values=STAGES)
DECISION = Attribute(
    "decision",
    "string",
    "`kept`; `suppressed`, when the rate of its reason was used up; or `dropped`.",
    values=(KEPT, SUPPRESSED, DROPPED),
)
DECISION_REASON = Attribute(
    "reason",
    "string",
    "Of kept and suppressed traces the policy that chose them; of dropped ones what stood against them.",
    values=(*REASONS, NOT_SELECTED, UNSAMPLED_PARENT, HOST_SAMPLER, NO_SDK),
)
DETAIL = Attribute(
    "detail",
    "string",
    "How much of the evaluation was recorded: only that it took place (`counted`, with the duration of another one of"
    " its expression), its duration, its stages too, or its operators too.",
    values=(COUNTED, BASIC, STAGE_DETAIL, OPERATOR_DETAIL),
)
LOST_WHAT = Attribute(
    "what",
    "string",
    "What was lost; `driver_span` is a database driver's own span, `policy` an answer of a policy of yours.",
    values=(
        *(WHAT_EVALUATION, WHAT_SPAN, WHAT_METRIC, WHAT_FINDING, WHAT_MEMORY),
        *(WHAT_DRIVER_SPAN, WHAT_POLICY),
    ),
)
LOST_REASON = Attribute(
    "reason",
    "string",
    "Why; [operations](operations.md) tells what to do about it.",
    values=(
        *(
            INTERNAL_ERROR,
            NOT_FINISHED,
            EXPORT_FAILED,
            QUEUE_FULL,
            SHUT_DOWN,
            FILE_ROTATED,
            FILE_ERROR,
            LIMIT,
        ),
        *(TOO_OLD, TOO_MANY_TRACES, TOO_MANY_SPANS, TOO_MANY_BYTES, ENDED_TWICE, UNDECIDED),
        *(EVALUATION_DROPPED, NOT_LOADED),
    ),
)

DURATION_BOUNDARIES = (
    *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
"""10 µs to 100 s; the SDK's own begin at 5 s, when they are read as seconds."""

OPERATOR_BOUNDARIES = (1e-6, 2e-6, 5e-6, *DURATION_BOUNDARIES)
"""An operator of an evaluation of 80 µs takes a few of them."""

COUNT_BOUNDARIES = (0.0, *(float(10**exponent) for exponent in range(8)))

BYTE_BOUNDARIES = (0.0, *(float(2**20 * 4**exponent) for exponent in range(8)))
"""1 MiB to 16 GiB."""

EVALUATION_DURATION = Metric(
    "fhirpath.evaluation.duration",
    "histogram",
    "s",
    "Duration of an evaluation, without the time its consumer took between fetches.",
    (ENGINE_NAME, ENGINE_VERSION, EXECUTION_MODE, EXPRESSION_HASH, ERROR_TYPE),
    DURATION_BOUNDARIES,
)
STAGE_DURATION = Metric(
    "fhirpath.stage.duration",
    "histogram",
    "s",
    "Time a stage was active, without the consumer's.",
    (STAGE, ENGINE_NAME),
    DURATION_BOUNDARIES,
)
OPERATOR_DURATION = Metric(
    "fhirpath.operator.duration",
    "histogram",
    "s",
    "Time that all operators of one name took by themselves in an evaluation; only of evaluations of the level"
    " `operators`.",
    (OPERATOR_NAME, ENGINE_NAME),
    OPERATOR_BOUNDARIES,
)
EVALUATION_ACTIVE = Metric(
    "fhirpath.evaluation.active",
    "observable up-down counter",
    "{evaluation}",
    "Evaluations that have begun and not ended.",
)
PARSER_CACHE_REQUESTS = Metric(
    "fhirpath.parser.cache.requests",
    "counter",
    "{request}",
    "Look-ups in the parser's cache.",
    (CACHE_RESULT,),
)
RESULT_COUNT = Metric(
    "fhirpath.result.count",
    "histogram",
    "{item}",
    "Items in the result of an evaluation.",
    (EXECUTION_MODE,),
    COUNT_BOUNDARIES,
)
DB_OPERATION_DURATION = Metric(
    "db.client.operation.duration",
    "histogram",
    "s",
    "Time the database worked on a statement.",
    (DB_SYSTEM_NAME, DB_OPERATION_NAME, DB_COLLECTION_NAME, ERROR_TYPE),
    DURATION_BOUNDARIES,
)
FINDINGS = Metric(
    "fhirpath.bottleneck.findings",
    "counter",
    "{finding}",
    "Bottlenecks found (see [rules](rules.md)), whatever became of the trace.",
    (FINDING_RULE, FINDING_SEVERITY, FINDING_STAGE),
)
EXPRESSION_INFO = Metric(
    "fhirpath.expression.info",
    "observable gauge",
    "1",
    "Always 1: tells the template of a hash. Absent with `CAPTURE_EXPRESSION=hash`.",
    (EXPRESSION_HASH, EXPRESSION_TEMPLATE),
)
EVALUATION_MEMORY_RISE = Metric(
    "fhirpath.evaluation.memory.rise",
    "histogram",
    "By",
    "By how much the process's resident memory rose at the most above where it was when the evaluation began; of"
    " evaluations from 50 ms on.",
    (EXECUTION_MODE,),
    BYTE_BOUNDARIES,
)
PROCESS_MEMORY_USAGE = Metric(
    "process.memory.usage",
    "observable up-down counter",
    "By",
    "The amount of physical memory in use. Silent where OpenTelemetry's instrumentation of system metrics reports it.",
)
DATABASE_MEMORY_USAGE = Metric(
    "fhirpath.database.memory.usage",
    "observable up-down counter",
    "By",
    "Memory that the embedded databases that are open hold, by their own account.",
    (DB_SYSTEM_NAME,),
)
DATABASE_TEMP_USAGE = Metric(
    "fhirpath.database.temp.usage",
    "observable up-down counter",
    "By",
    "What the embedded databases that are open hold in temporary files, by their own account.",
    (DB_SYSTEM_NAME,),
)
TRACES = Metric(
    "fhirpath.telemetry.traces",
    "counter",
    "{trace}",
    "Evaluations by what became of their trace; the sum is the number of evaluations.",
    (DECISION, DECISION_REASON),
)
EVALUATIONS = Metric(
    "fhirpath.telemetry.evaluations",
    "counter",
    "{evaluation}",
    "Evaluations by how much of them was recorded; the sum is the number of evaluations.",
    (DETAIL,),
)
DETAIL_INTERVAL = Metric(
    "fhirpath.telemetry.detail.interval",
    "observable gauge",
    "{evaluation}",
    "Evaluations of which one is recorded in this detail, over all that this process has made.",
    (DETAIL,),
)
OVERHEAD_RATIO = Metric(
    "fhirpath.telemetry.overhead.ratio",
    "observable gauge",
    "1",
    "Time that telemetry took to the time that evaluations took, by the recorder's own account of the last seconds.",
)
LOST = Metric(
    "fhirpath.telemetry.dropped",
    "counter",
    "{item}",
    "Telemetry of ours that was lost.",
    (LOST_WHAT, LOST_REASON),
)

METRICS = (
    EVALUATION_DURATION,
    STAGE_DURATION,
    OPERATOR_DURATION,
    EVALUATION_ACTIVE,
    PARSER_CACHE_REQUESTS,
    RESULT_COUNT,
    DB_OPERATION_DURATION,
    FINDINGS,
    EXPRESSION_INFO,
    EVALUATION_MEMORY_RISE,
    PROCESS_MEMORY_USAGE,
    DATABASE_MEMORY_USAGE,
    DATABASE_TEMP_USAGE,
    TRACES,
    EVALUATIONS,
    DETAIL_INTERVAL,
    OVERHEAD_RATIO,
    LOST,
)
