"""What tests ask the stack's programs, through the same interfaces that people and dashboards use."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

import pytest

# Loopback is never reached through the proxy that HTTP_PROXY may name.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get_json(url, **parameters):
    """The JSON that GET answers with; parameters that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    with _direct.open(f"{url}?{urllib.parse.urlencode(given, doseq=True)}", timeout=30) as answer:
        return json.load(answer)


def get_text(url, accept="*/*"):
    """The text that GET answers with, in a form that is accepted."""
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 -- of a program on loopback
    with _direct.open(request, timeout=30) as answer:
        return answer.read().decode()


def eventually(look, *, patience=60, every=0.2):
    """What `look()` returns as soon as that is true; fails after `patience` seconds with what it returned last.

    An AssertionError of `look` means "not yet" as well, so that a look may say more than true or false.
    """
    until = time.monotonic() + patience
    while True:
        try:
            seen = look()
        except (AssertionError, OSError) as error:
            seen, why = None, f"{type(error).__name__}: {error}"
        else:
            if seen:
                return seen
            why = repr(seen)
        if time.monotonic() > until:
            pytest.fail(f"did not come about within {patience} s; last seen: {why}")
        time.sleep(every)


@dataclass(frozen=True)
class Span:
    """A span as Jaeger stored it."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str | None
    microseconds: int
    attributes: dict
    resource: dict
    events: list
    everything: dict

    @classmethod
    def of(cls, span, processes):
        process = processes[span["processID"]]
        parents = [link["spanID"] for link in span.get("references", ()) if link["refType"] == "CHILD_OF"]
        return cls(
            span["operationName"],
            process["serviceName"],
            span["traceID"],
            span["spanID"],
            parents[0] if parents else None,
            span["duration"],
            _tags(span.get("tags")),
            _tags(process.get("tags")),
            [_tags(log["fields"]) for log in span.get("logs") or ()],
            span | {"process": process},
        )


def _tags(tags):
    return {tag["key"]: tag["value"] for tag in tags or ()}


class Jaeger:
    """Jaeger's query API."""

    def __init__(self, url):
        self.url = url

    def services(self):
        return get_json(f"{self.url}/api/services")["data"] or []

    def traces(self, service, *, operation=None, attributes=None, limit=1500):
        """The traces of a service, each a list of spans; those with these attributes only, if any are given."""
        found = get_json(
            f"{self.url}/api/traces",
            service=service,
            operation=operation,
            tags=json.dumps(attributes) if attributes else None,
            limit=limit,
            start=0,
            end=int(time.time() + 3600) * 1_000_000,
        )
        return [
            [Span.of(span, trace["processes"]) for span in trace["spans"]] for trace in found["data"] or ()
        ]

    def span_ids(self, service, began, ended, *, step=2):
        """The ids of all spans of a service in the traces between these times, asked for `step` seconds at a time."""
        found = set()
        for start in range(int(began) - 1, int(ended) + 2, step):
            answer = get_json(
                f"{self.url}/api/traces",
                service=service,
                limit=100_000,
                start=start * 1_000_000,
                end=(start + step) * 1_000_000,
            )
            found.update(span["spanID"] for trace in answer["data"] or () for span in trace["spans"])
        return found

    def trace(self, trace_id):
        """The spans of one trace; empty if there is none of that id."""
        try:
            found = get_json(f"{self.url}/api/traces/{trace_id}")["data"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return [Span.of(span, trace["processes"]) for trace in found for span in trace["spans"]]

    def monitor(self, figure, service, **parameters):
        """What the Monitor tab shows: `figure` is latencies, calls or errors."""
        return get_json(f"{self.url}/api/metrics/{figure}", service=service, **parameters)["metrics"]


@dataclass(frozen=True)
class Sample:
    """A series of an instant query, with its value now."""

    labels: dict
    value: float


class Prometheus:
    """Prometheus' query API."""

    def __init__(self, url):
        self.url = url

    def query(self, promql):
        """The series that the expression yields now."""
        answer = get_json(f"{self.url}/api/v1/query", query=promql)
        found = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            return [Sample({}, float(found[1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in found]

    def value(self, promql):
        """The value of the only series that the expression yields now, or None."""
        found = self.query(promql)
        assert len(found) <= 1, found
        return found[0].value if found else None

    def exemplars(self, promql):
        """The exemplars of the series that the expression selects, each with labels, value and timestamp."""
        now = time.time()
        answer = get_json(f"{self.url}/api/v1/query_exemplars", query=promql, start=now - 3600, end=now + 60)
        return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]

    def series(self):
        """The labels of all series."""
        return get_json(f"{self.url}/api/v1/series", **{"match[]": '{__name__=~".+"}'})["data"]

    def metric_names(self):
        return get_json(f"{self.url}/api/v1/label/__name__/values")["data"]

    def targets(self):
        """The health of each target, by job and address."""
        active = get_json(f"{self.url}/api/v1/targets", state="active")["data"]["activeTargets"]
        return {
            (one["labels"]["job"], one["discoveredLabels"]["__address__"]): one["health"] for one in active
        }

    def alerts(self, name=None):
        """The alerts that are pending or firing, all or those of one rule."""
        found = get_json(f"{self.url}/api/v1/alerts")["data"]["alerts"]
        return [alert for alert in found if name in {None, alert["labels"]["alertname"]}]

    def rules(self):
        groups = get_json(f"{self.url}/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


class Alertmanager:
    """Alertmanager's API."""

    def __init__(self, url):
        self.url = url

    def alerts(self):
        return get_json(f"{self.url}/api/v2/alerts")
