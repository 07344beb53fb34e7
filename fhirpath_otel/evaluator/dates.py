"""Which texts are dates: SQL compares them as text and memory by their parts, so both have to agree on it."""

from __future__ import annotations

import re
from datetime import date

_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")

COMMON_DATE = (
    "^(?!0000)[0-9]{4}(-("
    "(0[13578]|1[02])(-(0[1-9]|[12][0-9]|3[01]))?"
    "|(0[469]|11)(-(0[1-9]|[12][0-9]|30))?"
    "|02(-(0[1-9]|1[0-9]|2[0-8]))?"
    r"))?\Z"
)
"""A pattern that all dates match but those of 29 February, and nothing else."""


def is_date(text: str) -> bool:
    """Whether it is a day of the calendar, a month or a year: `2012-05-03`, `2012-05` or `2012`.

    https://hl7.org/fhir/R4/datatypes.html#date
    """
    parts = _DATE.fullmatch(text)
    if parts is None:
        return False
    year, month, day = (int(part or 1) for part in parts.groups())
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
