"""Writes what in collector-config/otelcol.yaml follows from the package: what may pass, and the bottleneck rules.

The rest of that file is written by hand. What is written here stands between two comments, `generated: begin` and
`generated: end`; a test fails when they differ.

Usage: python -m tools.build_collector_config
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.analysis.thresholds import Thresholds
from tools.collector_config import redaction
from tools.collector_config.ottl import text
from tools.collector_config.rules import rule_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "collector-config" / "otelcol.yaml"
WIDTH = 120


def block(statements: Sequence[str]) -> str:
    """Statements as a list of YAML, folded; the collector reads `$$` as `$`."""
    lead, rest = " " * 10 + "- ", " " * 12
    lines: list[str] = []
    for statement in statements:
        escaped = statement.replace("$", "$$").replace("$${env:", "${env:")
        if len(lead + escaped) <= WIDTH and ": " not in escaped:
            lines.append(lead + escaped)
            continue
        folded = textwrap.wrap(escaped, WIDTH - len(rest), break_long_words=False, break_on_hyphens=False)
        if max(map(len, folded)) > WIDTH - len(rest):
            lines += [lead + _quoted(escaped).replace("\n", f"\n{rest}")]
            continue
        lines.append(f"{lead}>-")
        lines += [rest + line for line in folded]
    return "\n".join(lines)


def _quoted(statement: str) -> str:
    """A statement of patterns that are longer than a line, between quotes, where lines may end within a word."""
    parts = re.findall(r"[^ |]*[ |]*", text(statement))
    lines = [""]
    for part in parts:
        # A blank that a line begins with would not be read.
        if len(lines[-1] + part) > WIDTH - 13:
            lines.append("")
        lines[-1] += part
    return "\\\n".join(lines)


def blocks() -> dict[str, str]:
    """What stands between the comments, by their names."""
    return {
        "resources": block(redaction.resource_statements()),
        "scopes": block(redaction.scope_statements()),
        "spans": block(redaction.span_statements()),
        "events": block(redaction.event_statements()),
        "metrics": block(redaction.metric_statements()),
        "points": block(redaction.point_statements()),
        "rules": block(rule_statements(Thresholds())),
        "versions": _versions(),
    }


def _versions() -> str:
    told = {
        "fhirpath.package.version": package_version(),
        "fhirpath.package.schema_url": semconv.SCHEMA_URL,
    }
    return "\n".join(
        f"{' ' * 8}- name: {name}\n{' ' * 10}value: {text(value)}" for name, value in told.items()
    )


def package_version() -> str:
    """The version of the package, as pyproject.toml has it."""
    found = re.search(r'(?m)^version = "([^"]+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("pyproject.toml has no version")
    return found[1]


def filled(configuration: str) -> str:
    """The configuration with every block as it should be."""
    for name, content in blocks().items():
        begin, end = f"# generated: begin {name}\n", f"# generated: end {name}\n"
        before, begun, rest = configuration.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            raise ValueError(f"{CONFIGURATION.name} has no block {name!r}")
        indent = before[before.rindex("\n") + 1 :]
        configuration = f"{before}{begun}{content}\n{indent}{ended}{after}"
    return configuration


def main() -> None:
    """Writes the configuration."""
    CONFIGURATION.write_text(filled(CONFIGURATION.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {CONFIGURATION}")


if __name__ == "__main__":
    main()
