"""The first look at the data of a load: is it sound, and what structure does each type have?"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

import msgspec

from fhirpath_otel.databases.sources import Header, PlainHeader, Resource, read_header
from fhirpath_otel.databases.structure import Seen
from fhirpath_otel.evaluator.model import Model


class Survey:
    """The structure of each type that was seen so far.

    It is compiled to a msgspec type that refuses everything else, so one pass of msgspec (600 MB/s) checks a text and
    finds that there is nothing new in it. Only texts that it refuses are walked through.
    """

    def __init__(self, model: Model) -> None:
        self.seen: dict[str, Seen] = {}
        self._model = model
        self._settled: set[str] = set()
        self._decode: Callable[[bytes], Any] = read_header

    def read_header(self, text: bytes) -> Header:
        """The header of a text, checked to be JSON. It is a `PlainHeader` where `learn` has to look at the text."""
        try:
            header: Header = self._decode(text)
        except msgspec.ValidationError:
            return read_header(text)
        return header

    def learn(self, resource: Resource) -> None:
        """Takes in a resource, unless its header told that there is nothing new in it."""
        if not isinstance(resource.header, PlainHeader):
            return
        seen = self.seen.get(resource.type)
        if seen is None:
            seen = self.seen[resource.type] = Seen(self._model, resource.type)
        seen.learn(resource.text)
        if seen.is_settled() != (resource.type in self._settled):
            self._settled ^= {resource.type}
            self._compile()

    def _compile(self) -> None:
        types = [self.seen[type_].compiled() for type_ in sorted(self._settled)]
        self._decode = msgspec.json.Decoder(reduce(or_, types)).decode if types else read_header
