"""Applications that send by hand, at a rate, and know of each span whether the collector acknowledged it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.stack.otlp import span, spans_request

REQUESTS_PER_SECOND = 20
SPANS_PER_TRACE = 10


def trace_kept_by_an_application():
    """As the package sends it: the reason stands on the root only, and the scope tells the rest."""
    root = span(named={"fhirpath.engine.name": "fhirpath_otel", "fhirpath.sampling.reason": "baseline"})
    stages = [
        span(named={"fhirpath.stage": "sql"}, trace_id=root.trace_id, parent_span_id=root.span_id)
        for _ in range(SPANS_PER_TRACE - 1)
    ]
    return [root, *stages]


def undecided_trace():
    """Nobody has decided about it; the tail sampler will keep it, since its root failed."""
    root = span(named={"http.request.method": "GET"}, status=Status(code=Status.STATUS_CODE_ERROR))
    return [
        root,
        *(span(trace_id=root.trace_id, parent_span_id=root.span_id) for _ in range(SPANS_PER_TRACE - 1)),
    ]


@dataclass
class Sender:
    """Sends such traces from a thread of its own, as a context manager, and goes on when it is refused.

    A span is acknowledged when the call that it was in succeeded; nothing is sent twice.
    """

    endpoint: str
    service: str
    scope: str
    spans_per_second: int
    make_trace: object
    acknowledged: dict = field(default_factory=dict)
    """The time of the answer by the span's id, as Jaeger writes it."""
    not_acknowledged: set = field(default_factory=set)
    codes: set = field(default_factory=set)
    began: float = 0
    ended: float = 0

    def __enter__(self):
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.began = time.time()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self.ended = time.time()

    @property
    def sent(self):
        return len(self.acknowledged) + len(self.not_acknowledged)

    @property
    def rate(self):
        """Spans per second as they were really sent."""
        return self.sent / (self.ended - self.began)

    def _send(self):
        traces = max(1, self.spans_per_second // REQUESTS_PER_SECOND // SPANS_PER_TRACE)
        period = traces * SPANS_PER_TRACE / self.spans_per_second
        due = time.monotonic()
        # One that starts again is to be found at once.
        options = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(self.endpoint.removeprefix("http://"), options) as channel:
            export = TraceServiceStub(channel).Export
            while not self._over.wait(due - time.monotonic()):
                due += period
                self._export(export, [item for _ in range(traces) for item in self.make_trace()])

    def _export(self, export, spans):
        ids = [item.span_id.hex() for item in spans]
        request = spans_request(*spans, scope=self.scope, resource={"service.name": self.service})
        try:
            export(request, timeout=10)
        except grpc.RpcError as error:
            self.codes.add(error.code().name)
            self.not_acknowledged.update(ids)
        else:
            self.acknowledged.update(dict.fromkeys(ids, time.time()))


def keeping(stack, service, spans_per_second):
    """Sends what an application has decided to keep."""
    return Sender(stack.grpc, service, "fhirpath_otel", spans_per_second, trace_kept_by_an_application)


def undecided(stack, service, spans_per_second):
    """Sends what the tail sampler has to decide about."""
    return Sender(stack.grpc, service, "library", spans_per_second, undecided_trace)
