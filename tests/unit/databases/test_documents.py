"""The scanner of JSON documents: the same parts whatever the size of the window that moves over the text."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel.databases import documents
from fhirpath_otel.databases.documents import BrokenDocumentError, read_documents

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def parts(text: bytes, head: int = 0):
    return list(read_documents(text[:head], io.BytesIO(text[head:])))


@contextmanager
def window_of(size):
    """As if every document were a large one, seen through a window of that size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "SMALL_BYTES", 0)
        patch.setattr(documents, "CHUNK_BYTES", size)
        yield


@pytest.fixture
def small_window():
    with window_of(7):
        yield


@given(
    st.lists(st.dictionaries(st.text(), json_values, min_size=1, max_size=4), max_size=5),
    st.booleans(),
    st.integers(0, 40),
    st.integers(1, 60),
)
def test_resources_come_out_as_they_stand_in_the_text(resources, ascii_only, head, size):
    texts = [json.dumps(resource, indent=1, ensure_ascii=ascii_only) for resource in resources]
    entries = ", ".join(
        f'{{"fullUrl": "u",\n"resource": {text}, "search": {{"score": 1.0}}}}' for text in texts
    )
    bundle = f'{{"type": "batch", "resourceType": "Bundle", "entry": [{{}},{entries or "{}"}], "total": 1}}'.encode()
    at_once = parts(bundle, head)
    with window_of(size):
        entry_by_entry = parts(bundle, head)
    assert [part.text for part in at_once if part.text] == [text.encode() for text in texts]
    assert [part for part in at_once if part.text] == [part for part in entry_by_entry if part.text]
    assert len(at_once) == len(entry_by_entry)


@pytest.mark.usefixtures("small_window")
def test_the_type_may_come_after_the_entries():
    text = b'{"entry": [{"resource": {"id": 1}}, {}],\n "resourceType": "Bundle"}'
    assert [(part.text, part.line) for part in parts(text)] == [(b'{"id": 1}', 1), (None, 1)]


@pytest.mark.usefixtures("small_window")
def test_a_list_has_entries_too_but_is_a_resource():
    text = b'{"entry": [{"item": {"reference": "Patient/1"}}], "resourceType": "List"}'
    assert [part.text for part in parts(text)] == [text]


@pytest.mark.usefixtures("small_window")
def test_lines_are_counted_from_the_given_one():
    text = b'\n{"resourceType": "Bundle",\n"entry": [\n{"resource": {}},\n\n{"resource": {}}]}'
    assert [part.line for part in read_documents(text, None, 10)] == [13, 15]
    assert [part.line for part in parts(text)] == [4, 6]


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b'{"resourceType": "Bundle"', 1, "not valid JSON: it ends too early"),
        (b'{"resourceType": "Bundle",\n"entry": [{"a": 1}', 2, "not valid JSON: it ends too early"),
        (b'{"resourceType": "Bundle",\n"entry": {}}', 2, "not valid JSON: '[' is expected"),
        (b'{\n"a": 1,\n}', 3, "not valid JSON: a key in double quotes is expected"),
        (b'{"a": 1\n"b": 2}', 2, "not valid JSON: ',' is expected"),
        (b'{"a"\n1}', 2, "not valid JSON: ':' is expected"),
        (b'{"a": NaN}', 1, "not valid JSON: no number is called NaN"),
        (b'{"a":\n"x', 2, "not valid JSON: unterminated string"),
        (b'{"a": "x\ny"}', 1, "not valid JSON: invalid control character at"),
        (b'{"a":\n[1, 2,, 3]}', 2, "not valid JSON: expecting value"),
        (b'{"a":' + b"[" * 100_000, 1, "not valid JSON: it is nested too deeply"),
        (b'{"a": 1}\nx', 2, "not valid JSON: '{' is expected"),
        (b'{"a":\n"caf\xe9"}', 2, "not UTF-8"),
        (b'{"a":\n"caf\xc3', 2, "not UTF-8"),
    ],
)
def test_what_is_no_json_is_told_with_its_line(text, line, message):
    with pytest.raises(BrokenDocumentError) as caught:
        parts(text)
    assert (caught.value.line, caught.value.message) == (line, message)


def test_small_documents_are_refused_with_the_same_words():
    with pytest.raises(BrokenDocumentError) as caught:
        parts(b'{"resourceType": "Bundle",\n"entry": [{"a": 1},,]}')
    assert (caught.value.line, caught.value.message) == (2, "not valid JSON: expecting value")


def test_a_resource_beyond_the_limit_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(documents, "MAX_RESOURCE_BYTES", 1 << 20)
    monkeypatch.setattr(documents, "SMALL_BYTES", 1 << 20)
    text = b'{"resourceType": "Binary",\n"data": "' + b"x" * (8 << 20) + b'"}'
    stream = io.BytesIO(text)
    with pytest.raises(BrokenDocumentError, match="more than 1 MiB"):
        list(read_documents(b"", stream))
    assert stream.tell() < 5 << 20


def test_a_bundle_may_be_larger_than_the_limit(monkeypatch):
    monkeypatch.setattr(documents, "MAX_RESOURCE_BYTES", 1 << 20)
    monkeypatch.setattr(documents, "SMALL_BYTES", 1 << 20)
    entries = b",".join(b'{"resource": {"id": "%06d"}}' % number for number in range(100_000))
    found = parts(b'{"resourceType": "Bundle", "entry": [' + entries + b"]}")
    assert [part.text for part in found] == [b'{"id": "%06d"}' % number for number in range(100_000)]
