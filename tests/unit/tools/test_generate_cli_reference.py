from __future__ import annotations

from tools.generate_cli_reference import REFERENCE, reference


def test_the_command_line_reference_agrees_with_the_commands():
    assert REFERENCE.read_text(encoding="utf-8") == reference()
