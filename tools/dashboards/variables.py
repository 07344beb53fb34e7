"""The choices at the head of the dashboards about evaluations."""

from __future__ import annotations

from tools.dashboards.panels import Variable
from tools.dashboards.promql import (
    EVALUATIONS,
    INSTANCE,
    SERVICE,
    VERSION,
)

COUNT = f"{EVALUATIONS}_count"
OF_SERVICE = f'{COUNT}{{{SERVICE}=~"$service"}}'
OF_VERSION = f'{COUNT}{{{SERVICE}=~"$service",{VERSION}=~"$version"}}'

EVALUATION_VARIABLES = (
    Variable("service", "Service", COUNT, SERVICE),
    Variable("version", "Version", OF_SERVICE, VERSION),
    Variable("instance", "Instance", OF_VERSION, INSTANCE),
)
