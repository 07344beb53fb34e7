"""OTLP by hand: what no SDK would send, such as links with secrets, and a backend that keeps what it gets."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span


def value(of):
    if isinstance(of, bool):
        return AnyValue(bool_value=of)
    if isinstance(of, int):
        return AnyValue(int_value=of)
    if isinstance(of, float):
        return AnyValue(double_value=of)
    if isinstance(of, bytes):
        return AnyValue(bytes_value=of)
    if isinstance(of, dict):
        return AnyValue(kvlist_value=KeyValueList(values=attributes(of)))
    if isinstance(of, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[value(item) for item in of]))
    return AnyValue(string_value=of)


def attributes(of):
    return [KeyValue(key=name, value=value(item)) for name, item in of.items()]


def plain(pairs):
    """Attributes as Python has them, lists as lists of texts."""
    return {
        pair.key: [item.string_value for item in pair.value.array_value.values]
        if pair.value.WhichOneof("value") == "array_value"
        else getattr(pair.value, pair.value.WhichOneof("value"))
        for pair in pairs
    }


def span(name="work", named=None, *, seconds=0.001, trace_id=None, **more):
    began = time.time_ns()
    return Span(
        trace_id=trace_id or os.urandom(16),
        span_id=os.urandom(8),
        name=name,
        start_time_unix_nano=began,
        end_time_unix_nano=began + round(seconds * 1e9),
        attributes=attributes(named or {}),
        **more,
    )


def spans_request(*spans, resource=None, scope="library", scope_named=None, **more):
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=attributes({"service.name": "test"} | (resource or {}))),
                scope_spans=[
                    ScopeSpans(
                        scope=InstrumentationScope(name=scope, attributes=attributes(scope_named or {})),
                        spans=spans,
                    )
                ],
                **more,
            )
        ]
    )


def counter(name, named, *, exemplar=None, **more):
    now = time.time_ns()
    exemplars = [
        Exemplar(
            time_unix_nano=now,
            as_int=1,
            trace_id=b"1" * 16,
            span_id=b"2" * 8,
            filtered_attributes=attributes(exemplar or {}),
        )
    ]
    point = NumberDataPoint(
        time_unix_nano=now,
        start_time_unix_nano=1,
        as_int=4,
        attributes=attributes(named),
        exemplars=exemplars,
    )
    return Metric(
        name=name, sum=Sum(aggregation_temporality=2, is_monotonic=True, data_points=[point]), **more
    )


def metrics_request(*metrics, resource=None, scope="library", scope_named=None):
    return ExportMetricsServiceRequest(
        resource_metrics=[
            ResourceMetrics(
                resource=Resource(attributes=attributes({"service.name": "test"} | (resource or {}))),
                scope_metrics=[
                    ScopeMetrics(
                        scope=InstrumentationScope(name=scope, attributes=attributes(scope_named or {})),
                        metrics=metrics,
                    )
                ],
            )
        ]
    )


class Backend(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes traces over gRPC, on `port`, while it is not stopped."""

    def __init__(self, port=0, credentials=None):
        self.requests = []
        self.metadata = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        self.port = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self._server.start()

    def Export(self, request, context):  # noqa: N802 -- gRPC's name
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()

    @property
    def spans(self):
        return [
            item
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for item in scope.spans
        ]

    def by_id(self):
        return {item.span_id: item for item in self.spans}

    def stop(self):
        self._server.stop(0).wait()
