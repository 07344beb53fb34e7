"""Builds Grafana's dashboards out of tools/dashboards; a test fails when what is checked in differs.

Usage: python tools/build_dashboards.py [--queries [--json]]

`--queries` prints every expression that Prometheus is asked, as Grafana sends it with everything chosen, and writes
nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards import collector, databases, expressions, findings, overview, sampler, stages
from tools.dashboards.panels import built, queries
from tools.dashboards.promql import example

FOLDER = Path(__file__).resolve().parents[1] / "collector-config" / "grafana" / "dashboards"

PAGES = tuple(
    module.PAGE for module in (overview, stages, expressions, databases, findings, sampler, collector)
)


def files() -> dict[str, str]:
    """The text of each dashboard by the name of its file."""
    return {
        f"{page.uid}.json": json.dumps(
            built(page), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for page in PAGES
    }


def asked(*, interval: str = "1m", span: str = "5m") -> list[dict[str, str]]:
    """Every expression of every panel and variable.

    `interval` stands for Grafana's rate interval, `span` for the time shown.
    """
    return [
        {"dashboard": dashboard, "panel": panel, "query": example(expression, interval=interval, span=span)}
        for dashboard, panel, expression in queries(PAGES)
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", action="store_true", help="print the expressions and write nothing")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.add_argument("--interval", default="1m", help="for $__rate_interval (1m)")
    parser.add_argument("--range", dest="span", default="5m", help="for $__range (5m)")
    options = parser.parse_args()
    if options.queries:
        listed = asked(interval=options.interval, span=options.span)
        if options.json:
            print(json.dumps(listed, indent=1, ensure_ascii=False))
        else:
            for entry in listed:
                print(f"{entry['dashboard']} · {entry['panel']}\n  {entry['query']}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
