"""A day in the life of a process in which everything a user can write carries a marker.

The script runs by itself; `PLANT` in its environment has it leak at every place on purpose, so that tests can show
that they would find a leak.
"""

from __future__ import annotations

MARKER = "Kanarienvogel"

EXPRESSIONS = (
    "Patient.name.where(family = 'Kanarienvogel-1').given",
    "Patient.name /* Kanarienvogel-2 */ // Kanarienvogel-3",
    "Patient.`Kanarienvogel-4`.name.where(`Kanarienvogel-5` = %`Kanarienvogel-6`)",
    "Patient.kanarienvogel7.kanarienvogel8(%kanarienvogel9, %'Kanarienvogel-10')",
    "Patient.name.where(family = 'Kanarienvogel-11",
    "Patient.name is Kanarienvogel12.Kanarienvogel13",
    "Kanarienvogel14.name | 4 'Kanarienvogel-15'",
    "Patient..name 'Kanarienvogel-16'",
    "",
)
"""In telemetry's own terms, also with messages where names of errors belong."""

EVALUATED = (
    "Patient.name.family",  # the marker is in the data alone
    "Patient.name.family.upper()",
    "Patient.name.where(family = 'Kanarienvogel-30').given",
    "Patient.name.where(family.matches('Kanarienvogel-31')).family.upper()",
    "Patient.name /* Kanarienvogel-32 */ .`given` // Kanarienvogel-33",
    "Patient.name.where(family = 'Kanarienvogel-34",
    "Patient.`Kanarienvogel-35`",
    "Patient.name.where(family = %`Kanarienvogel-36`)",
    "Patient.name.where(family = %'Kanarienvogel-37')",
    "Patient.name.ofType(Kanarienvogel38)",
    "Kanarienvogel39.name",
    "Patient.kanarienvogel40()",
    "Patient.name.given.single()",
    "Patient.name.family.select('Kanarienvogel-41'.toInteger() + $this.toDate())",
    "Patient.extension('Kanarienvogel-42').value",
    "Patient.birthDate = @2014-01-25 and 'Kanarienvogel-43' in Patient.name.family",
)
"""By the whole line, over resources with markers in every value."""

SCRIPT = (
    f"EXPRESSIONS, EVALUATED = {EXPRESSIONS!r}, {EVALUATED!r}\n"
    """
import json, logging, os, pathlib, sys
import fhirpath_otel as fo
from fhirpath_otel import configuration
from fhirpath_otel.errors import ExpressionError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.template import expression_template
from fhirpath_otel.telemetry.operators import OperatorTime

folder = pathlib.Path(os.environ["FOLDER"])
logging.basicConfig(level=logging.DEBUG, filename=folder / "log.txt")
fo.configure(local_traces=os.environ["LOCAL_TRACES"] == "True")
recorder = configuration.recorder()

def note(expression, error_type):
    evaluation = recorder.begin()
    evaluation.expression = expression
    evaluation.resource_type = "Kanarienvogel17"
    evaluation.db_system, evaluation.statement_summary = "duckdb", "SELECT Kanarienvogel18"
    evaluation.execution_mode, evaluation.result_count, evaluation.cache_hit = "pushdown", 1, False
    evaluation.stages += [("parse", 0, 1), ("sql", 1, 2), ("in_memory", 2, 10**8)]
    evaluation.operators = (OperatorTime("Kanarienvogel-59", 0, 9, 1, 1, 1, 1), OperatorTime("where", 1, 1, 1, 1, 1, 1))
    evaluation.start_ns, evaluation.obstacle = evaluation.start_ns - 10**8, (8, 20)
    try:
        evaluation.template = expression_template(parse(expression), load_model())
    except ExpressionError as error:
        error_type = str(error)
    recorder.finish(evaluation, error_type)

for expression in EXPRESSIONS:
    for error_type in (None, "Could not convert 'Kanarienvogel-19'", "ValueError"):
        note(expression, error_type)

# Our own failure: a stage that nobody knows, and a sampler that raises.
evaluation = recorder.begin()
evaluation.stages.append(("Kanarienvogel-20", 0, 1))
recorder.finish(evaluation)
def fail(*_, **__): raise ValueError("Kanarienvogel-21")
decide, recorder._judge.decide = recorder._judge.decide, fail
note("Patient.name", None)
recorder._judge.decide = decide

# The whole line, over a file and a database with markers in their names.
name = dict(family="Kanarienvogel-22", given=["Kanarienvogel-23", "Kanarienvogel-24"])
patient = dict(resourceType="Patient", id="Kanarienvogel-25", name=[name], birthDate="Kanarienvogel-26")
patient["extension"] = [dict(url="Kanarienvogel-42", valueString="Kanarienvogel-27")]
source = folder / "Kanarienvogel-28.ndjson"
source.write_text(json.dumps(patient) + chr(10))
database = fo.connect(folder / "Kanarienvogel-29.duckdb")
database.load(source)

outcomes = []
def attempt(action):
    try:
        outcomes.append(type(action()).__name__)
    except BaseException as error:  # also KeyboardInterrupt
        outcomes.append(type(error).__name__)

for mode in ("auto", "memory", "sql"):
    for expression in EVALUATED:
        attempt(lambda: database.evaluate(expression, mode=mode).fetchall())

# A database that fails, and a user who interrupts, at the start of a statement and while it is read.
class Rows:
    sql_active_ns, in_memory_active_ns, operators = 0, None, ()
    def __init__(self, error): self.error = error
    def close(self): pass
    def batches(self):
        yield [("Kanarienvogel-44", "Kanarienvogel-45")]
        raise self.error

import duckdb
def start(statement): raise duckdb.ConversionException("Kanarienvogel-46")
real = type(database).execute
for broken in (
    lambda self, statement: start(statement),
    lambda self, statement: Rows(duckdb.IOException("Kanarienvogel-47")),
    lambda self, statement: Rows(fo.errors.DatabaseError("Kanarienvogel-48")),
    lambda self, statement: Rows(KeyboardInterrupt("Kanarienvogel-49")),
):
    type(database).execute = broken
    attempt(lambda: database.evaluate("Patient.name.family").fetchall())
type(database).execute = real

# Connections that cannot be had.
for url in (
    "postgresql://kanarienvogel50:Kanarienvogel-51@localhost/Kanarienvogel-52",
    "kanarienvogel53://user:Kanarienvogel-54@localhost",
    str(folder / "Kanarienvogel-55" / "nothing.duckdb"),
    str(source),
):
    attempt(lambda: fo.connect(url, read_only=True))
attempt(lambda: database.load(folder / "Kanarienvogel-56.ndjson"))
(folder / "Kanarienvogel-57.ndjson").write_text('{"resourceType": "Kanarienvogel58", "id": ')
attempt(lambda: database.load(folder / "Kanarienvogel-57.ndjson"))

if os.environ.get("PLANT"):
    from opentelemetry import metrics, trace
    trace.get_tracer("leak").start_span("Kanarienvogel").end()
    metrics.get_meter("leak").create_counter("leak").add(1, {"leak": "Kanarienvogel"})
    logging.getLogger("leak").debug("Kanarienvogel")
    print("Kanarienvogel")

fo.flush(20.0)
try:
    from prometheus_client import generate_latest
except ImportError:
    pass
else:
    (folder / "prometheus.txt").write_bytes(generate_latest())

# Exporters that raise: nothing of this is expected to arrive, and nothing of it to be said.
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
ConsoleMetricExporter.export = ConsoleSpanExporter.export = fail
note("Patient.name", "ValueError")
fo.flush(20.0)
print(json.dumps(outcomes))
"""
)
