from __future__ import annotations

import pytest

from tools import generate_docs


@pytest.mark.parametrize("path", generate_docs.pages(), ids=lambda path: path.name)
def test_the_generated_pages_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == generate_docs.pages()[path], (
        "run: python tools/generate_docs.py"
    )


def test_a_table_escapes_what_would_end_a_cell():
    assert generate_docs.table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"
