"""An application that does everything that dashboards show, until it is ended; run with a folder to work in."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from pathlib import Path

import fhirpath_otel as fo
from fhirpath_otel import population
from fhirpath_otel.errors import ExpressionError

ENOUGH_FOR_A_LONG_EVALUATION = 3000
EXPRESSIONS = (
    "Patient.name.where(use = 'official').family",
    # In memory, and long: a bottleneck with operators, whose memory is watched
    "Patient.name.where(use = 'official').select(given.join(' ') + ' ' + family)",
)
FAILING = ("Patient.nosuchelement", "Patient.name.given.single()")


def main() -> None:
    folder = Path(sys.argv[1])
    population.write(folder, ENOUGH_FOR_A_LONG_EVALUATION)
    fo.configure()
    with fo.connect(":memory:") as database:
        database.load(folder)
        for turn in itertools.count():
            fo.set_detail(("operators", "auto")[turn % 2])
            for expression in (*EXPRESSIONS, f"Patient.name.where(family = '{turn}').given"):
                list(database.evaluate(expression))
            for expression in FAILING:
                with contextlib.suppress(ExpressionError):
                    list(database.evaluate(expression))
            time.sleep(0.1)


if __name__ == "__main__":
    main()
