"""Says so where the bundled collector would take a service's name away: everything else about it would look well."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from fhirpath_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

_logger = logging.getLogger("fhirpath_otel")


def warn_of_service_name(attributes: Mapping[str, object]) -> None:
    """Warns if the `service.name` among a resource's attributes would not pass."""
    name = attributes.get(semconv.SERVICE_NAME)
    if isinstance(name, str) and not re.fullmatch(semconv.LABEL_PATTERN, name):
        # Not the name itself: who knows what it is.
        _logger.warning(
            "%s would not pass the bundled collector: the service would be called missing-service-name in Jaeger and"
            " have no name in Prometheus; give it one of 128 characters at most, plain letters, digits, blanks and"
            " _.:/+- that begins with a letter, a digit or _, in OTEL_SERVICE_NAME or where your program makes its"
            " resource",
            semconv.SERVICE_NAME,
        )
