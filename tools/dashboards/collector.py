"""Whether what the services send arrives."""

from __future__ import annotations

from tools.dashboards.panels import Chart, Dashboard, Number, Query, Row, Table, Variable
from tools.dashboards.promql import (
    or_none,
    summed,
)

OWN = 'job="otelcol-self",instance=~"$instance"'
UPTIME = f"otelcol_process_uptime_seconds_total{{{OWN}}}"
TAIL = "otelcol_processor_tail_sampling"


def _rate(name: str, by: str = "", *conditions: str) -> str:
    return summed(f"rate({name}{{{','.join((OWN, *conditions))}}}[$__rate_interval])", by)


def _failures(name: str, by: str) -> str:
    """The counter of a failure does not exist before the first one."""
    return or_none(_rate(name, by), UPTIME, by)


NOW = (
    Number(
        "Targets down",
        "Does Prometheus reach all that it scrapes? If not, numbers on all dashboards stand still: see the"
        " table below.",
        (Query("count(up == 0) or vector(0)", "down"),),
        "short",
        width=6,
        height=4,
        limits=(1,),
    ),
    Number(
        "Received spans",
        "Do services send traces?",
        (Query(_rate("otelcol_receiver_accepted_spans_total"), "spans"),),
        "cps",
        width=6,
        height=4,
    ),
    Number(
        "Queue for Jaeger",
        "Is Jaeger slower than what arrives, or down? The queue is on disk and survives a restart; when it is"
        " full, newer spans are refused. Mend Jaeger before.",
        (
            Query(
                f"max(otelcol_exporter_queue_size{{{OWN}}} / otelcol_exporter_queue_capacity{{{OWN}}})",
                "filled",
            ),
        ),
        "percentunit",
        width=6,
        height=4,
        limits=(0.5, 0.8),
    ),
    Number(
        "Up since",
        "Was the collector restarted? A restart loses what the tail sampler held: at most DECISION_WAIT ×"
        " rate.",
        (Query(f"min({UPTIME})", "up"),),
        "s",
        width=6,
        height=4,
    ),
)

FLOW = (
    Chart(
        "Received",
        "What arrives, by transport? Compare with what is sent on.",
        (
            Query(_rate("otelcol_receiver_accepted_spans_total", "transport"), "spans {{transport}}"),
            Query(
                _rate("otelcol_receiver_accepted_metric_points_total", "transport"), "points {{transport}}"
            ),
        ),
        "cps",
    ),
    Chart(
        "Sent",
        "What goes on to Jaeger and Prometheus? Fewer spans than received is the tail sampling's doing.",
        (
            Query(_rate("otelcol_exporter_sent_spans_total", "exporter"), "spans {{exporter}}"),
            Query(_rate("otelcol_exporter_sent_metric_points_total", "exporter"), "points {{exporter}}"),
        ),
        "cps",
    ),
    Chart(
        "Refused and failed",
        "Is anything turned away or lost? Refused: the memory limiter is at work, senders retry. Failed to"
        " enqueue: the queue is full, these spans are gone. Failed to send: retried for ever. `none` at zero:"
        " nothing.",
        (
            Query(_failures("otelcol_receiver_refused_spans_total", "receiver"), "refused {{receiver}}"),
            Query(
                _failures("otelcol_receiver_refused_metric_points_total", "receiver"),
                "points refused {{receiver}}",
            ),
            Query(
                _failures("otelcol_exporter_enqueue_failed_spans_total", "exporter"),
                "not enqueued {{exporter}}",
            ),
            Query(_failures("otelcol_exporter_send_failed_spans_total", "exporter"), "not sent {{exporter}}"),
        ),
        "cps",
    ),
)

SAMPLING = (
    Chart(
        "Traces by decision",
        "How many traces does the collector keep? What the package has decided to keep is always among them.",
        (Query(_rate(f"{TAIL}_global_count_traces_sampled_total", "decision"), "{{decision}}"),),
        "cps",
        stacked=True,
    ),
    Chart(
        "Kept by policy",
        "Which policy keeps them? A trace can satisfy several.",
        (
            Query(
                _rate(f"{TAIL}_count_traces_sampled_total", "policy", 'decision="sampled"'),
                "{{policy}}",
            ),
        ),
        "cps",
    ),
    Chart(
        "Dropped before a decision",
        "Are more traces open than the sampler may hold? Raise num_traces (and the memory), or shorten"
        " DECISION_WAIT.",
        (
            Query(
                f"{_rate(f'{TAIL}_sampling_trace_dropped_too_early_total')} or 0 * sum({UPTIME})",
                "dropped too early",
            ),
        ),
        "cps",
    ),
)

RESOURCES = (
    Chart(
        "Memory",
        "Is the memory limiter near? It refuses from OTELCOL_MEMORY_LIMIT_MIB less its spike on, 320 MiB of"
        " heap by default.",
        (
            Query(f"otelcol_process_memory_rss_bytes{{{OWN}}}", "resident {{instance}}"),
            Query(f"otelcol_process_runtime_heap_alloc_bytes{{{OWN}}}", "heap {{instance}}"),
        ),
        "bytes",
    ),
    Chart(
        "Processor",
        "How many cores does it use? One collector takes about what it has; more: see docs/scale.md.",
        (Query(_rate("otelcol_process_cpu_seconds_total", "instance"), "{{instance}}"),),
        "short",
    ),
    Chart(
        "Queue",
        "Does the queue drain after an outage? It should fall as soon as Jaeger is back.",
        (
            Query(f"sum by (exporter) (otelcol_exporter_queue_size{{{OWN}}})", "{{exporter}}"),
            Query(f"sum by (exporter) (otelcol_exporter_queue_capacity{{{OWN}}})", "capacity {{exporter}}"),
        ),
        "short",
    ),
)

SCRAPES = (
    Table(
        "Targets",
        "What does Prometheus scrape, how long does it take, and how many samples come? 0 is down.",
        (
            Query("min by (job, instance) (up)", "Up", unit="short"),
            Query("max by (job, instance) (scrape_duration_seconds)", "Duration", unit="s"),
            Query("max by (job, instance) (scrape_samples_scraped)", "Samples", unit="short"),
        ),
        "short",
        width=12,
    ),
    Chart(
        "Spans that reach Jaeger",
        "Does Jaeger take what it is sent? Compare with what the collector sends.",
        (Query('sum(rate(otelcol_receiver_accepted_spans_total{job="jaeger"}[$__rate_interval]))', "spans"),),
        "cps",
        width=12,
    ),
)

PAGE = Dashboard(
    "fhirpath-collector",
    "FHIRPath: collector",
    "Whether what the services send arrives in Jaeger and Prometheus.",
    (
        Variable(
            "instance", "Collector", 'otelcol_process_uptime_seconds_total{job="otelcol-self"}', "instance"
        ),
    ),
    (
        Row("Now", NOW),
        Row("Flow", FLOW),
        Row("Tail sampling", SAMPLING),
        Row("Resources", RESOURCES),
        Row("Scrapes", SCRAPES),
    ),
)
