"""The Python API over a real database: results, threads, errors, and what Ctrl-C does to a query."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

import fhirpath_otel as fo
from fhirpath_otel import errors, population

PATIENTS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population")
    population.write(folder, PATIENTS)
    return folder


@pytest.fixture(scope="module")
def database(folder):
    with fo.connect(":memory:") as opened:
        opened.load(folder)
        yield opened


def test_a_result_is_read_once_like_a_cursor(database):
    result = database.evaluate("Patient.name.where(use = 'official').family")
    first = next(iter(result))
    rest = result.fetchall()
    assert len([first, *rest]) == PATIENTS
    assert result.fetchall() == []
    assert list(result) == []


def test_a_result_tells_its_mode_and_how_it_came_about(database):
    result = database.evaluate("Patient.name.family")
    assert (result.mode, result.mode_reason, result.sampling, result.trace_id) == ("sql", None, None, None)
    rows = result.fetchall()
    explained = result.explain()
    assert result.sampling is not None
    assert explained.rows == len(rows)
    assert 'FROM "Patient"' in explained.sql
    assert explained.result_type == "string [0..*]"
    stages = dict(explained.stages)
    assert stages["sql"] > 0
    assert "Patient.name.family" in str(explained)


def test_in_memory_the_reason_names_the_operator(database):
    result = database.evaluate("Patient.name.first().family.upper()")
    assert result.mode == "memory"
    assert "upper()" in result.mode_reason
    assert all(value == value.upper() for _, value in result)
    assert {"sql", "in_memory"} <= set(dict(result.explain().stages))


def test_the_place_of_what_sql_cannot_express_is_noted_unless_memory_was_asked_for(database):
    text = "Patient.name.first().family.upper()"
    fallen_back = database.evaluate(text)
    fallen_back.fetchall()
    start, end = fallen_back._evaluation.obstacle
    assert "upper()" in text[start:end]
    for mode, healthy in (("memory", text), ("auto", "Patient.name.family")):
        result = database.evaluate(healthy, mode=mode)
        result.fetchall()
        assert result._evaluation.obstacle is None


def test_only_what_ran_is_a_stage(database):
    text = "Patient.name.count() > 17"
    first, second = database.evaluate(text), database.evaluate(text)
    assert [name for name, _ in first.explain().stages] == ["parse", "type_check", "collection"]
    assert [name for name, _ in second.explain().stages] == ["parse"]
    assert (first.explain().cache_hit, second.explain().cache_hit) == (False, True)


@pytest.mark.parametrize(
    ("expression", "type_"),
    [
        ("Patient.name.exists()", "bool"),
        ("Patient.name.count()", "int64"),
        ("Patient.name.family", "string"),
        ("Observation.value.ofType(Quantity).value", "decimal128"),
        ("Observation.value", "string"),
    ],
)
def test_arrow_has_a_column_of_the_values_type(database, expression, type_):
    rows = database.evaluate(expression).fetchall()
    table = database.evaluate(expression).arrow()
    assert table.column_names == ["id", "value"]
    assert str(table.schema.field("value").type).startswith(type_)
    values = table.column("value").to_pylist()
    assert len(values) == len(rows) > 0
    for got, (_, value) in zip(values, rows, strict=True):
        assert got == value or json.loads(got, parse_float=Decimal) == value


def test_an_empty_result_is_an_empty_table(database):
    table = database.evaluate("Patient.photo.url").arrow()
    assert (table.num_rows, table.column_names) == (0, ["id", "value"])
    assert list(database.evaluate("Patient.photo.url").df().columns) == ["id", "value"]


def test_a_frame_holds_the_values_as_they_are(database):
    frame = database.evaluate("Patient.name.first()").df()
    assert len(frame) == PATIENTS
    assert isinstance(frame["value"][0], dict)


def test_threads_may_share_a_database(database):
    texts = [f"Patient.name.where(use = '{use}').family" for use in ("official", "usual", "maiden")]
    texts += ["Observation.value.ofType(Quantity).value", "Patient.name.first().family.upper()"]
    alone = {text: database.evaluate(text).fetchall() for text in texts}

    def evaluate(number):
        text = texts[number % len(texts)]
        return text, database.evaluate(text).fetchall()

    with ThreadPoolExecutor(8) as pool:
        for text, rows in pool.map(evaluate, range(80)):
            assert rows == alone[text]


def test_a_result_keeps_the_data_that_it_began_with(tmp_path):
    lines = [json.dumps({"resourceType": "Patient", "id": f"p{n}", "gender": "male"}) for n in range(60_000)]
    (tmp_path / "first.ndjson").write_text("\n".join(lines))
    (tmp_path / "second.ndjson").write_text('{"resourceType":"Patient","id":"late","birthDate":"2000"}')
    with fo.connect(tmp_path / "clinic.duckdb") as opened:
        opened.load(tmp_path / "first.ndjson")
        result = opened.evaluate("Patient.id")
        begun = [next(iter(result))]
        loading = threading.Thread(target=opened.load, args=(tmp_path / "second.ndjson",))
        loading.start()
        loading.join()
        assert len(begun + result.fetchall()) == 60_000
        assert opened.evaluate("Patient.birthDate").fetchall() == [("late", "2000")]
        assert len(opened.evaluate("Patient.id").fetchall()) == 60_001


def test_what_is_closed_or_forgotten_ends_the_evaluation(database):
    with database.evaluate("Observation.id") as result:
        next(iter(result))
    assert result.sampling is not None
    assert result.fetchall() == []
    forgotten = database.evaluate("Observation.id")
    evaluation = forgotten._evaluation
    del forgotten
    gc.collect()
    # A finalizer only notes the end; it is judged when the next one begins.
    database.evaluate("Observation.id").close()
    assert evaluation.outcome is not None


def test_the_consumers_time_is_not_the_evaluations(database):
    result = database.evaluate("Observation.id")
    next(iter(result))
    threading.Event().wait(0.2)
    result.fetchall()
    evaluation = result._evaluation
    assert evaluation.consumer_ns >= 200_000_000
    assert evaluation.duration_ns < evaluation.end_ns - evaluation.start_ns - 199_000_000


def test_several_items_where_one_is_allowed_are_an_error_with_a_place(database):
    with pytest.raises(errors.EvaluationError) as caught:
        database.evaluate("Patient.where(name.given > 'A')", mode="sql").fetchall()
    assert (caught.value.start, caught.value.end) == (14, 24)


@pytest.mark.parametrize(
    ("expression", "options", "error", "said"),
    [
        ("Patient.name", {"mode": "fast"}, errors.UsageError, "unknown mode 'fast'"),
        ("name", {}, errors.FhirpathOtelError, "resource"),
        ("1 + 1", {}, errors.UsageError, "--resource-type"),
        ("Patient.name", {"resource_type": "Pateint"}, errors.UsageError, "did you mean 'Patient'"),
        ("Claim.id", {}, errors.DatabaseError, "no resources of type Claim are loaded; there are: "),
        ("Patient.birthdate", {}, errors.ExpressionTypeError, "at 8; did you mean 'birthDate'?"),
        ("Patient.name.", {}, errors.ExpressionSyntaxError, " at 13"),
        ("", {}, errors.ExpressionSyntaxError, "empty"),
        (
            "Patient.name.family.upper()",
            {"mode": "sql"},
            errors.ExpressionTypeError,
            "SQL cannot express upper()",
        ),
    ],
)
def test_what_cannot_be_evaluated_says_why(database, expression, options, error, said):
    with pytest.raises(error, match=r".") as caught:
        database.evaluate(expression, **options)
    assert said in str(caught.value)


def test_a_database_without_data_says_how_to_get_some():
    with fo.connect(":memory:") as opened, pytest.raises(errors.DatabaseError, match="nothing is loaded"):
        opened.evaluate("Patient.name")


def test_a_variable_of_the_caller_is_no_table(database):
    Claim = [("x", "y")]  # noqa: N806 -- a name that DuckDB could take for a table
    with pytest.raises(errors.DatabaseError):
        database.evaluate("Claim.id")
    assert Claim


SLOW = """
import sys
import fhirpath_otel as fo
with fo.connect(sys.argv[1]) as database:
    print("ready", flush=True)
    try:
        database.evaluate(
            "Patient.where(%s > 0).count()"
            % " + ".join("name.where(given.exists($this > '%d')).count()" % n for n in range(60))
        ).fetchall()
        print("finished before it could be interrupted")
    except KeyboardInterrupt:
        print("interrupted", len(database.evaluate("Patient.id").fetchall()))
"""


def test_ctrl_c_stops_a_query_and_leaves_the_database_usable(tmp_path):
    lines = (
        json.dumps({"resourceType": "Patient", "id": f"p{n}", "name": [{"given": ["A", "B", "C"]}] * 20})
        for n in range(30_000)
    )
    (tmp_path / "many.ndjson").write_text("\n".join(lines))
    path = tmp_path / "clinic.duckdb"
    with fo.connect(path) as opened:
        opened.load(tmp_path / "many.ndjson")
    process = subprocess.Popen([sys.executable, "-c", SLOW, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    threading.Event().wait(1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert out == "interrupted 30000\n"


def patients(path, count, **members):
    lines = (json.dumps({"resourceType": "Patient", "id": f"p{n}", **members}) for n in range(count))
    path.write_text("\n".join(lines))
    return path


def test_two_loads_at_once_leave_one_row_an_id(tmp_path):
    files = [patients(tmp_path / f"{name}.ndjson", 3_000, name=[{"family": name}]) for name in "AB"]
    with fo.connect(tmp_path / "clinic.duckdb") as opened, ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(opened.load, files))
        assert len(opened.evaluate("Patient.id").fetchall()) == 3_000
        assert len({family for _, family in opened.evaluate("Patient.name.family")}) == 1
    assert sorted(report.types["Patient"].replaced for report in reports) == [0, 3_000]


def test_all_that_opened_a_file_see_what_one_of_them_loads(tmp_path):
    def observation(value):
        return f'{{"resourceType":"Observation","id":"{value}","valueQuantity":{{"value":{value}}}}}'

    (tmp_path / "narrow.ndjson").write_text(observation("1.5"))
    (tmp_path / "wide.ndjson").write_text(observation("1.5001"))
    expression = "Observation.value.ofType(Quantity).value > 1.5"
    with fo.connect(tmp_path / "clinic.duckdb") as one, fo.connect(tmp_path / "clinic.duckdb") as other:
        one.load(tmp_path / "narrow.ndjson")
        assert other.evaluate(expression, mode="sql").fetchall() == [("1.5", False)]
        one.load(tmp_path / "wide.ndjson")
        assert other.evaluate(expression, mode="sql").fetchall() == [("1.5", False), ("1.5001", True)]


def test_a_result_that_is_closed_early_holds_nothing_open(tmp_path):
    with fo.connect(tmp_path / "clinic.duckdb") as opened:
        opened.load(patients(tmp_path / "many.ndjson", 30_000))
        with opened.evaluate("Patient.id") as result:
            next(iter(result))
        opened.load(patients(tmp_path / "few.ndjson", 3, gender="male"))
        opened.cursor().execute("CHECKPOINT")


def test_what_a_driver_raises_becomes_a_sentence_without_values(tmp_path):
    opened = fo.connect(tmp_path / "clinic.duckdb")
    opened.load(patients(tmp_path / "few.ndjson", 3))
    result = opened.evaluate("Patient.id")
    opened.cursor().execute("""UPDATE "Patient" SET r = {'id': 'x'}""")
    opened.close()
    for failing in (result.fetchall, lambda: opened.evaluate("Patient.id").fetchall()):
        with pytest.raises(errors.DatabaseError, match=r"clinic\.duckdb|closed") as caught:
            failing()
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("expression", "resource_type", "said"),
    [
        (None, None, "an expression is a text, not NoneType"),
        (5, None, "an expression is a text, not int"),
        (["Patient.id"], None, "an expression is a text, not list"),
        ("id", 5, "resource_type is the name of a type or None, not int"),
    ],
)
def test_what_is_no_expression_is_wrong_usage_and_leaves_no_warning(
    database, caplog, expression, resource_type, said
):
    with pytest.raises(errors.UsageError, match=said):
        database.evaluate(expression, resource_type=resource_type)
    assert caplog.records == []


@pytest.mark.parametrize(("method", "package"), [("arrow", "pyarrow"), ("df", "pandas")])
def test_a_missing_extra_is_told_and_the_rows_can_still_be_read(database, monkeypatch, method, package):
    monkeypatch.setitem(sys.modules, package, None)
    with database.evaluate("Patient.id") as result:
        with pytest.raises(
            errors.FhirpathOtelError, match=rf"needs {package}.* pip install 'fhirpath-otel\[arrow\]'"
        ):
            getattr(result, method)()
        assert result.fetchall() != []


def test_a_database_of_another_version_says_what_to_do(tmp_path):
    with fo.connect(tmp_path / "old.duckdb") as opened:
        opened.load(patients(tmp_path / "few.ndjson", 3))
        opened.cursor().execute("ALTER TABLE fhirpath_otel.structures DROP COLUMN widths")
    with fo.connect(tmp_path / "old.duckdb") as opened:
        for failing in (lambda: opened.evaluate("Patient.id"), lambda: opened.load(tmp_path / "few.ndjson")):
            with pytest.raises(errors.DatabaseError, match="another version"):
                failing()
