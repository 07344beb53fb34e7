"""A process that evaluates with the real package all the time, and tells what it has seen when it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager

# It is paced, so that the programs get their share of two processors; within an outage it makes more spans than wait.
EVALUATES = """
import json, logging, queue, sys, threading, time
logging.basicConfig(filename=sys.argv[2])
import fhirpath_otel as fo
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

class Ended(SpanProcessor):
    ids = []
    def on_end(self, span):
        self.ids.append(f"{span.context.span_id:016x}")

fo.configure()
trace.get_tracer_provider().add_span_processor(Ended())
asked = queue.SimpleQueue()
def listen():
    for line in sys.stdin:
        asked.put(line)
    asked.put(None)
threading.Thread(target=listen, daemon=True).start()

def tell(**more):
    print(json.dumps(dict(evaluations=len(durations), wrong=wrong, spans=len(Ended.ids), **more)), flush=True)

durations, wrong, since, over = [], 0, 0, False
with fo.connect(":memory:") as database:
    database.load(sys.argv[1])
    right = len(list(database.evaluate("Patient.name.family")))
    while not over:
        began = time.perf_counter()
        try:
            wrong += len(list(database.evaluate("Patient.name.family"))) != right
        except Exception:
            wrong += 1
        durations.append(time.perf_counter() - began)
        time.sleep(0.005)
        if not asked.empty():
            over = asked.get() is None
            if not over:
                tell(slowest=max(durations[since:]))
                since = len(durations)
flushed = fo.flush(30)
tell(ids=Ended.ids, flushed=flushed)
"""
SPANS_THAT_WAIT = 128
# Should an evaluation wait for ever, the test fails all the same.
LASTS = 300


class Application:
    """The other end of that process."""

    def __init__(self, process, log):
        self._process = process
        self._log = log

    def tells(self):
        """Evaluations and spans since the beginning, and the slowest evaluation, in seconds, since it last told."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def ends(self):
        """Hands over what it has, and tells its spans' ids too."""
        self._process.stdin.close()
        return json.loads(self._process.stdout.readline())

    def log(self):
        return self._log.read_text(encoding="utf-8")


@contextmanager
def evaluating(stack, service, folder, data):
    """Runs it; only what has it keep every trace, and lose some early, is not as a user would have it."""
    environment = stack.application_environment(
        service,
        OTEL_METRIC_EXPORT_INTERVAL="1000",
        OTEL_BSP_MAX_QUEUE_SIZE=str(SPANS_THAT_WAIT),
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE=str(SPANS_THAT_WAIT // 2),
        OTEL_PYTHON_FHIRPATH_OVERHEAD_BUDGET="1",
        OTEL_PYTHON_FHIRPATH_BASELINE_RATE="1",
        OTEL_PYTHON_FHIRPATH_MAX_TRACES_PER_SECOND="10000",
    )
    log = folder / "application.log"
    process = subprocess.Popen(
        [sys.executable, "-c", EVALUATES, data, log],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    end = threading.Timer(LASTS, process.kill)
    end.start()
    with process:
        try:
            yield Application(process, log)
        finally:
            end.cancel()
            process.kill()
