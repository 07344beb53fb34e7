"""Which files are read, what is found in them, and what is said about what cannot be read."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from fhirpath_otel.databases import sources
from fhirpath_otel.databases.sources import Reader, discover
from fhirpath_otel.errors import LoadError, UsageError
from fhirpath_otel.evaluator.model import load_model

PATIENT = b'{"resourceType":"Patient","id":"p","name":[{"family":"Chalmers"}]}'
OTHER = b'{"resourceType":"Patient","id":"q"}'
BUNDLE = b"""{
  "resourceType": "Bundle",
  "type": "searchset",
  "entry": [
    {"fullUrl": "urn:uuid:u-1", "resource": {"resourceType": "Patient"}},
    {"request": {"method": "GET", "url": "Patient"}},
    {"resource": null},
    {
      "resource": {
        "resourceType": "Patient", "id": "p",
        "multipleBirthInteger": 1
      }
    }
  ]
}
"""


def read(path, **options):
    """The (type, id, text, line) of each resource, and what was rejected as (line, message)."""
    rejected: list[LoadError] = []
    reader = Reader(load_model().resource_types, rejected.append, **options)
    found = [(one.type, one.id, one.text, one.line) for one in reader.read(str(path))]
    return found, [(error.line, error.message) for error in rejected], reader


def write(folder, content, name="in.ndjson"):
    path = folder / name
    path.write_bytes(content)
    return path


class TestDiscover:
    def test_folders_are_searched_on_all_levels_by_name(self, tmp_path):
        for name in (
            "b.ndjson",
            "a.json",
            "sub/c.jsonl.gz",
            "sub/d.JSON",
            "notes.txt",
            ".hidden.json",
            ".git/x.json",
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            write(tmp_path, b"{}", name)
        found = discover([tmp_path])
        assert [Path(file).name for file in found.files] == ["a.json", "b.ndjson", "c.jsonl.gz", "d.JSON"]
        assert sorted(Path(file).name for file in found.ignored) == [".git", ".hidden.json", "notes.txt"]

    def test_a_linked_folder_is_told_as_ignored(self, tmp_path):
        (tmp_path / "real").mkdir()
        write(tmp_path / "real", b"{}", "a.json")
        (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
        found = discover([tmp_path])
        assert [Path(file).parent.name for file in found.files] == ["real"]
        assert [Path(file).name for file in found.ignored] == ["link"]

    def test_a_file_is_read_once_however_often_it_is_named(self, tmp_path):
        path = write(tmp_path, b"{}")
        assert discover([path, str(path), tmp_path, tmp_path / "." / "in.ndjson"]).files == (str(path),)

    def test_a_named_file_is_read_whatever_its_name(self, tmp_path):
        path = write(tmp_path, b"{}", "patients.txt")
        assert discover([path]).files == (str(path),)

    def test_patterns_name_files_in_order(self, tmp_path):
        for name in ("2.ndjson", "1.ndjson", "3.txt"):
            write(tmp_path, b"{}", name)
        found = discover([str(tmp_path / "*.ndjson")])
        assert [Path(file).name for file in found.files] == ["1.ndjson", "2.ndjson"]

    def test_a_file_whose_name_looks_like_a_pattern_is_read(self, tmp_path):
        path = write(tmp_path, b"{}", "a[1].ndjson")
        assert discover([path]).files == (str(path),)

    @pytest.mark.parametrize(
        ("paths", "message"),
        [
            (["missing.ndjson"], "missing.ndjson: no such file or folder"),
            (["*.nothing"], "*.nothing: no file or folder matches"),
            (["empty"], "empty: no .ndjson, .jsonl or .json file in this folder"),
            ([], "nothing to load: name a file or a folder"),
            ([""], "an empty path; name a file or a folder (. is the current one)"),
            (
                ["s3://b/k.ndjson"],
                "s3://b/k.ndjson: only files of this machine can be loaded; download it first",
            ),
            ([os.devnull], f"{os.devnull}: neither a file nor a folder; a load reads its input twice"),
        ],
    )
    def test_nothing_to_read_is_a_usage_error(self, tmp_path, monkeypatch, paths, message):
        monkeypatch.chdir(tmp_path)
        Path("empty").mkdir()
        write(Path("empty"), b"{}", "notes.txt")
        with pytest.raises(UsageError) as caught:
            discover(paths)
        assert str(caught.value) == message


class TestLines:
    @pytest.mark.parametrize(
        "content",
        [
            PATIENT + b"\n" + OTHER + b"\n",
            PATIENT + b"\n" + OTHER,
            PATIENT + b"\r\n" + OTHER + b"\r\n",
            gzip.compress(PATIENT + b"\n" + OTHER + b"\n"),
        ],
    )
    def test_each_line_is_a_resource(self, tmp_path, content):
        found, rejected, _ = read(write(tmp_path, content))
        assert found == [("Patient", "p", PATIENT, 1), ("Patient", "q", OTHER, 2)]
        assert rejected == []

    def test_blank_lines_are_passed_and_counted(self, tmp_path):
        found, rejected, _ = read(write(tmp_path, b"\n  \n" + PATIENT + b"\n\r\n\n" + OTHER + b"\n\n"))
        assert [(id_, line) for _, id_, _, line in found] == [("p", 3), ("q", 6)]
        assert rejected == []

    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path):
        found, rejected, _ = read(write(tmp_path, b"\xef\xbb\xbf" + PATIENT + b"\n"))
        assert found == [("Patient", "p", PATIENT, 1)]
        assert rejected == []

    def test_spaces_around_a_resource_belong_to_its_text(self, tmp_path):
        found, _, _ = read(write(tmp_path, b"  " + PATIENT + b" \t\n"))
        assert found[0][2] == b"  " + PATIENT + b" \t"

    def test_a_bundle_on_a_line_stands_for_its_resources(self, tmp_path):
        line = b'{"resourceType":"Bundle","entry":[{"resource":' + OTHER + b"}]}"
        found, rejected, _ = read(write(tmp_path, PATIENT + b"\n" + line + b"\n"))
        assert found == [("Patient", "p", PATIENT, 1), ("Patient", "q", OTHER, 2)]
        assert rejected == []

    def test_a_line_beyond_the_limit_is_rejected_and_the_next_is_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "_FIRST_LINE_BYTES", 1 << 10)
        monkeypatch.setattr(sources, "MAX_RESOURCE_BYTES", 1 << 20)
        long = PATIENT[:-1] + b',"language":"' + b"x" * (5 << 20) + b'"}'
        for before in (OTHER, OTHER + b"\n" + OTHER):
            found, rejected, _ = read(write(tmp_path, before + b"\n" + long + b"\n" + PATIENT + b"\n"))
            last = before.count(b"\n") + 3
            assert [(id_, line) for _, id_, _, line in found][-2:] == [("q", last - 2), ("p", last)]
            assert [(line, message[:27]) for line, message in rejected] == [
                (last - 1, "a line of more than 1 MiB, ")
            ]

    @pytest.mark.parametrize("size", [500, 2_000, 50_000])
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_long_lines_are_lines(self, tmp_path, monkeypatch, size, place):
        monkeypatch.setattr(sources, "_FIRST_LINE_BYTES", 1 << 10)
        lines = [OTHER, PATIENT]
        lines.insert(place, PATIENT[:-1] + b',"language":"' + b"x" * size + b'"}')
        found, rejected, _ = read(write(tmp_path, b"\n".join(lines)))
        assert [(text, line) for _, _, text, line in found] == [
            (line, number) for number, line in enumerate(lines, 1)
        ]
        assert rejected == []

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (PATIENT[:-1] + b",}", "not valid JSON: trailing comma in object"),
            (PATIENT[:-1] + b',"active":NaN}', "not valid JSON: invalid character"),
            (PATIENT[:20], "not valid JSON: it ends too early"),
            (PATIENT + b" x", "not valid JSON: trailing characters"),
            (
                PATIENT.replace(b"Chalmers", b"\\ud800"),
                "not valid JSON: an escape is half of a surrogate pair",
            ),
            (PATIENT.replace(b"Chalmers", b"a\tb"), "not valid JSON: invalid character"),
            (PATIENT.replace(b"Chalmers", b"caf\xe9"), "not UTF-8 at byte 57; convert the file to UTF-8"),
            (PATIENT.replace(b"family", b"caf\xe9"), "not UTF-8 at byte 48; convert the file to UTF-8"),
            (
                PATIENT[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
                "JSON that is nested too deeply",
            ),
            (b"5", "a FHIR resource is a JSON object, which this is not"),
            (b'["a"]', "a FHIR resource is a JSON object, which this is not"),
            (b'{"id":"p"}', "JSON without a resourceType is no FHIR resource"),
            (b'{"resourceType":"Patient"}', "this Patient has no id"),
            (b'{"resourceType":"Patient","id":""}', "this Patient has no id"),
            (b'{"resourceType":"Patient","id":5}', "resourceType and id have to be strings"),
            (b'{"resourceType":null,"id":"p"}', "resourceType and id have to be strings"),
            (
                b'{"resourceType":"Patiant","id":"p"}',
                "unknown resource type 'Patiant'; did you mean 'Patient'?",
            ),
            (b'{"resourceType":"DomainResource","id":"p"}', "unknown resource type 'DomainResource'"),
            (
                b'{"resourceType":"Xyz","id":"p"}',
                "unknown resource type 'Xyz'; FHIR R4 has none of that name",
            ),
        ],
    )
    def test_a_broken_line_is_told_with_its_number_and_the_others_are_read(self, tmp_path, line, message):
        found, rejected, _ = read(write(tmp_path, OTHER + b"\n" + line + b"\n" + PATIENT + b"\n"))
        assert [(id_, number) for _, id_, _, number in found] == [("q", 1), ("p", 3)]
        assert [number for number, _ in rejected] == [2]
        assert rejected[0][1].startswith(message)

    def test_a_broken_first_line_does_not_make_a_document_of_the_file(self, tmp_path):
        found, rejected, _ = read(write(tmp_path, PATIENT[:30] + b"\n" + OTHER + b"\n"))
        assert found == [("Patient", "q", OTHER, 2)]
        assert [line for line, _ in rejected] == [1]

    @pytest.mark.parametrize("name", ["in.ndjson", "in.JSONL", "in.json", "in"])
    @pytest.mark.parametrize(
        "broken",
        [OTHER[:-1], OTHER[:-5], OTHER[:30], PATIENT[:40], b'{"resourceType"', b'{"resourceType":"P",'],
    )
    def test_broken_first_lines_do_not_make_a_document_of_the_file(self, tmp_path, name, broken):
        found, rejected, _ = read(write(tmp_path, (broken + b"\n") * 2 + PATIENT + b"\n", name))
        assert found == [("Patient", "p", PATIENT, 3)]
        assert [line for line, _ in rejected] == [1, 2]

    def test_first_lines_that_break_off_in_a_list_are_lines_by_the_name(self, tmp_path):
        broken = b'{"resourceType":"Patient","name":[\n'
        found, rejected, _ = read(write(tmp_path, broken * 2 + PATIENT + b"\n", "in.ndjson.gz"))
        assert found == [("Patient", "p", PATIENT, 3)]
        assert [line for line, _ in rejected] == [1, 2]

    def test_a_long_broken_first_line_is_a_line_by_the_name(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "_FIRST_LINE_BYTES", 1 << 10)
        long = PATIENT[:-1] + b',"language":"' + b"x" * 5_000
        found, rejected, _ = read(write(tmp_path, long + b"\n" + PATIENT + b"\n"))
        assert found == [("Patient", "p", PATIENT, 2)]
        assert [line for line, _ in rejected] == [1]


class TestDocuments:
    def test_a_bundle_stands_for_the_resources_of_its_entries(self, tmp_path):
        found, rejected, reader = read(write(tmp_path, BUNDLE, "bundle.json"))
        text = b'{\n        "resourceType": "Patient", "id": "p",\n        "multipleBirthInteger": 1\n      }'
        assert found == [
            ("Patient", "u-1", b'{"resourceType": "Patient"}', 5),
            ("Patient", "p", text, 9),
        ]
        assert rejected == []
        assert reader.entries_without_resource == 2

    def test_the_name_of_the_file_does_not_matter(self, tmp_path):
        assert read(write(tmp_path, BUNDLE, "a.ndjson"))[0] == read(write(tmp_path, BUNDLE, "b.json"))[0]

    @pytest.mark.parametrize(
        "start",
        [b'{"resourceType":"Bundle","entry":[\n', b'{"resourceType":"Bundle",\n"entry":[\n', b"{\n\n"],
    )
    def test_a_document_need_not_be_indented(self, tmp_path, start):
        rest = b"" if b"entry" in start else b'"resourceType":"Bundle",\n"entry":[\n'
        content = start + rest + b'{"resource":' + OTHER + b'},\n{"resource":\n' + PATIENT + b"}\n]}\n"
        found, rejected, _ = read(write(tmp_path, content, "in.json"))
        assert [id_ for _, id_, _, _ in found] == ["q", "p"]
        assert rejected == []

    def test_a_bundle_in_an_entry_is_a_resource_of_its_own(self, tmp_path):
        inner = b'{"resourceType": "Bundle", "id": "i", "entry": [{"resource": ' + OTHER + b"}]}"
        content = b'{\n"resourceType": "Bundle", "entry": [{"resource": ' + inner + b"}]}"
        assert read(write(tmp_path, content))[0] == [("Bundle", "i", inner, 2)]

    def test_a_bundle_in_an_entry_needs_an_id(self, tmp_path):
        content = b'{\n"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Bundle"}}]}'
        found, rejected, _ = read(write(tmp_path, content))
        assert found == []
        assert rejected[0][1].startswith("this Bundle has no id")

    def test_a_single_resource_keeps_its_text(self, tmp_path):
        text = b'{\n  "resourceType": "Patient",\n  "id": "p",\n  "birthDate":\t"1974"\n}'
        assert read(write(tmp_path, b"\n" + text + b"\n"))[0] == [("Patient", "p", text, 2)]

    def test_documents_may_follow_one_another(self, tmp_path):
        found, rejected, _ = read(write(tmp_path, BUNDLE + b'{\n"resourceType":"Patient",\n"id":"z"\n}\n'))
        assert [(id_, line) for _, id_, _, line in found] == [("u-1", 5), ("p", 9), ("z", 16)]
        assert rejected == []

    def test_a_broken_entry_is_told_with_its_line_and_the_others_are_read(self, tmp_path):
        content = BUNDLE.replace(b'"Patient"}}', b'"Patiant"}}')
        found, rejected, _ = read(write(tmp_path, content))
        assert [id_ for _, id_, _, _ in found] == ["p"]
        assert rejected == [(5, "unknown resource type 'Patiant'; did you mean 'Patient'?")]

    def test_a_broken_document_is_read_up_to_there(self, tmp_path):
        found, rejected, _ = read(write(tmp_path, BUNDLE.replace(b"null},", b"null};")))
        assert [id_ for _, id_, _, _ in found] == ["u-1"]
        advice = "so the document cannot be read from here on; mend it, or skip the rest (--on-error skip)"
        assert rejected == [(7, f"not valid JSON: ',' is expected, {advice}")]


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty; remove it, or get it anew"),
            (b" \n\n", "the file is empty; remove it, or get it anew"),
            (gzip.compress(b""), "the file is empty; remove it, or get it anew"),
            (b"PK\x03\x04\0\0", "binary data; only JSON text can be loaded, plain or gzipped"),
            (b"\x89PNG\r\n", "binary data; only JSON text can be loaded, plain or gzipped"),
            (gzip.compress(b"\0\1\2"), "binary data; only JSON text can be loaded, plain or gzipped"),
            (PATIENT.decode().encode("utf-16"), "the file is UTF-16; convert it to UTF-8"),
            (b'<?xml version="1.0"?><Patient/>', "XML; only FHIR's JSON format can be loaded"),
            (
                b"[" + PATIENT + b"]",
                "a JSON array; put each resource on a line of its own (NDJSON), or all into a Bundle",
            ),
            (gzip.compress(PATIENT)[:-9], "the gzip data is damaged or cut off; get the file anew"),
            (
                gzip.compress(PATIENT)[:30] + b"x" * 50,
                "the gzip data is damaged or cut off; get the file anew",
            ),
        ],
    )
    def test_a_file_that_holds_no_fhir_json_is_told_in_one_sentence(self, tmp_path, content, message):
        found, rejected, _ = read(write(tmp_path, content))
        assert found == []
        assert rejected == [(None, message)]

    def test_a_file_that_cannot_be_opened_is_told(self, tmp_path):
        assert read(tmp_path / "gone.ndjson")[1] == [(None, "cannot be read: No such file or directory")]

    @pytest.mark.parametrize("content", [PATIENT + b"\n", gzip.compress(PATIENT + b"\n"), BUNDLE])
    def test_every_byte_of_the_file_is_told_as_progress(self, tmp_path, content):
        advanced: list[int] = []
        read(write(tmp_path, content), advance=advanced.append)
        assert sum(advanced) == len(content)

    def test_reading_can_be_stopped_by_raising_what_was_rejected(self, tmp_path):
        def stop(error):
            raise error

        path = write(tmp_path, b"5\n" + PATIENT)
        with pytest.raises(LoadError, match=r"in\.ndjson:1: a FHIR resource is a JSON object"):
            list(Reader(load_model().resource_types, stop).read(str(path)))
