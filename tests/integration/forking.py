"""Programs that fork, as their servers and pools do."""

from __future__ import annotations

SETUP = """
import faulthandler, json, logging, os, pathlib, sys, tempfile, threading, warnings
warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
logging.basicConfig(format="%(name)s: %(message)s")
import fhirpath_otel as fo
from fhirpath_otel import configuration
from fhirpath_otel.telemetry.redaction import template_from

fo.configure()

def evaluate(name, times=1, error_type="database"):
    \"\"\"An evaluation whose spans and metrics tell who evaluated; it fails, so that its trace is kept.\"\"\"
    recorder = configuration.recorder()
    for _ in range(times):
        evaluation = recorder.begin()
        evaluation.expression, evaluation.template = name, template_from(name)
        evaluation.engine_version = name
        evaluation.stages.append(("parse", evaluation.start_ns, evaluation.start_ns + 1000))
        recorder.finish(evaluation, error_type)

def wait(*children):
    for child in children:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
"""

PRELOAD = (
    SETUP
    + """
evaluate("parent", 5)
if {flushed_before}:
    fo.flush(10)
evaluate("parent", 2)
children = []
for number in range(2):
    child = os.fork()
    if child == 0:
        evaluate(f"child{{number}}", 3)
        sys.exit(0)  # with the interpreter's exit handlers, as gunicorn's workers do
    children.append(child)
wait(*children)
evaluate("parent", 1)
"""
)

POOL = (
    SETUP
    + """
import multiprocessing

def work(number):
    evaluate("pool", 2)
    return os.getpid()

evaluate("parent", 5)
context = multiprocessing.get_context("fork")
pool = context.Pool(2)
workers = set(pool.map(work, range(6), chunksize=1))
pool.close()
pool.join()
print(len(workers))
"""
)

RACE = (
    SETUP
    + """
stop = threading.Event()

def keep_evaluating(name):
    while not stop.wait(0.0005):  # so that the thread that forks gets its turn on a busy machine
        evaluate(name, 1, None)

def keep_flushing():
    while not stop.wait(0.002):
        fo.flush(1.0)

threads = [threading.Thread(target=keep_evaluating, args=("parent",), daemon=True) for _ in range(3)]
threads.append(threading.Thread(target=keep_flushing, daemon=True))
for thread in threads:
    thread.start()
for number in range(25):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(30, exit=True)  # a child that hangs says where
        evaluate("child", 19, None)
        evaluate("child", 1)
        flushed = fo.flush(20.0)
        os._exit(0 if flushed else 1)
    wait(child)
stop.set()
for thread in threads:
    thread.join()
"""
)
