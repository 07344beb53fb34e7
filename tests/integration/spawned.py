"""A program whose worker processes are started in each way there is; run as a file, since they import it."""

from __future__ import annotations

import multiprocessing
import sys

import fhirpath_otel as fo
from fhirpath_otel import configuration
from fhirpath_otel.telemetry.redaction import template_from

METHOD, WHERE = sys.argv[1:3] if len(sys.argv) > 2 else ("", "")


def work(name: str) -> None:
    recorder = configuration.recorder()
    evaluation = recorder.begin()
    evaluation.template, evaluation.engine_version = template_from(name), name
    recorder.finish(evaluation, "database")


if WHERE == "top":
    fo.configure()

if __name__ == "__main__":
    multiprocessing.set_start_method(METHOD)
    initializer = fo.configure if WHERE == "worker" else None
    with multiprocessing.Pool(2, initializer) as pool:
        pool.map(work, ["child"] * 6)
        pool.close()
        pool.join()
