"""An application that evaluates what it is told, and how a test starts and tells it.

Nothing but `OTEL_*` variables sets its telemetry up. It runs with the NDJSON file of a resource type to evaluate over.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import fhirpath_otel as fo
from fhirpath_otel.errors import FhirpathOtelError

ROOT = Path(__file__).parents[2]
# Longer than it takes on a loaded machine; should an evaluation wait for ever, the test fails all the same.
PATIENCE = 300


class Application:
    """A running application."""

    def __init__(self, process, patience=PATIENCE):
        self._process = process
        self._patience = patience

    def evaluate(self, *expressions, times=1):
        """Has each expression evaluated so often; returns when the telemetry of that was handed over."""
        print(json.dumps([expressions, times]), file=self._process.stdin, flush=True)
        # Its end is what ends the reading.
        end = threading.Timer(self._patience, self._process.kill)
        end.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            end.cancel()
        assert answer == "handed over\n", f"{answer!r}, status {self._process.poll()}"


@contextmanager
def running(environment, file):
    """Starts an application, and ends it as a service ends: with all that it still has to say."""
    with subprocess.Popen(
        [sys.executable, __file__, file],
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Application(process)
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()


def main():
    fo.configure()
    with fo.connect(":memory:") as database:
        database.load(sys.argv[1])
        for line in sys.stdin:
            expressions, times = json.loads(line)
            for expression in expressions * times:
                with contextlib.suppress(FhirpathOtelError):
                    list(database.evaluate(expression))
            sys.stdout.write("handed over\n" if fo.flush(30) else "not in time\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
