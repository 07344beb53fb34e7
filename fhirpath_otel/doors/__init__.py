"""Where spans leave the process: a span processor and an exporter that decide about them when they have ended.

The recorder decides about our own evaluations before any span exists. The doors here decide about spans that exist: of
other evaluators, or (`TAIL_SAMPLING=all`) of the whole service. They are components of OpenTelemetry's SDK.
"""
