"""A share of the ordinary evaluations, chosen so that the trace itself tells by what chance.

A new trace is chosen by a draw that its id will then end in; a trace whose caller carries a threshold by the randomness
of that trace, so that all who sample by it choose the same traces. Below a sampled caller that tells no threshold
nothing is known of how its id was chosen: a draw of our own decides.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.tracestate import RANGE, incoming_threshold, randomness_of, threshold_of


class Draw(NamedTuple):
    """An evaluation was chosen: how many it stands for, and what its trace can tell of that (see `Decision`)."""

    weight: float = 1.0
    threshold: int | None = 0
    randomness: int | None = None


class Baseline:
    """Chooses a share of `rate`, from 0 to 1. `chance` gives numbers from 0 to below 1."""

    def __init__(self, rate: float, chance: Callable[[], float]) -> None:
        self._threshold = threshold_of(rate)
        self._chance = chance
        self.weight = 1 / rate if rate > 0 else 0.0
        self._log_of_others = math.log1p(-rate) if rate < 1 else -math.inf

    def passes(self) -> int:
        """How many evaluations are passed over until one is chosen: as if each were drawn by itself."""
        if self._log_of_others == 0:
            return sys.maxsize
        # 1 - chance is above 0.
        return min(sys.maxsize, int(math.log(1.0 - self._chance()) / self._log_of_others))

    def draw(self, evaluation: Evaluation) -> Draw | None:
        """The draw, if the evaluation is chosen.

        Its weight is that among the evaluations below sampled callers: the caller's own threshold is not in it.
        """
        caller = evaluation.caller
        incoming = None if caller is None else incoming_threshold(caller)
        if caller is not None and incoming is not None:
            threshold = max(self._threshold, incoming)
            if randomness_of(caller) < threshold:
                return None
            return Draw((RANGE - incoming) / (RANGE - threshold), self._threshold)
        given = evaluation.randomness if caller is None else None
        randomness = self._randomness(evaluation.drawn, given)
        if randomness is None:
            return None
        weight = RANGE / (RANGE - self._threshold)
        return Draw(weight, self._threshold, randomness) if caller is None else Draw(weight, None)

    def randomness(self) -> int:
        """That of an evaluation which is chosen, from the threshold on."""
        return max(self._threshold, RANGE - 1 - int(self._chance() * (RANGE - self._threshold)))

    def _randomness(self, drawn: bool | None, given: int | None) -> int | None:
        """That of a chosen evaluation; `drawn` tells a draw that was made before, `given` what its id ends in."""
        if drawn is False:
            return None
        if drawn:
            return self.randomness() if given is None else given
        # A float has 53 bits of chance; the last three, which no threshold of a setting reaches, are ones.
        randomness = RANGE - 1 - int(self._chance() * RANGE) if given is None else given
        return None if randomness < self._threshold else randomness
