"""Paired evidence that one of two files is the less accurate: the exact sign test (McNemar's).

Of the images on which only one of the two is right, a file that is no worse loses each with
probability 1/2. Two of two lost is one chance in four: no evidence; five of five is one in 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

from fettle.evaluation import accuracy_statistics


@dataclass(frozen=True, slots=True)
class PairedEvidence:
    """Images of validation that only the one, only the other file got right, out of `n`."""

    lost: int
    gained: int
    n: int

    @property
    def p_value(self) -> float:
        """The probability of losing at least so many by chance."""
        pairs = self.lost + self.gained
        as_bad = sum(math.comb(pairs, k) for k in range(self.lost, pairs + 1))
        return float(as_bad / 2**pairs)

    def is_real(self, confidence: float) -> bool:
        """Tell whether the second file is shown to be worse, at `confidence`."""
        return self.p_value <= 1 - confidence


def compare(first: Path, second: Path) -> PairedEvidence:
    """Compare two targets by evaluate's answers.safetensors: what `second` loses and gains."""
    a, b = load_file(first), load_file(second)
    before, after = (accuracy_statistics.correct(one["candidate"], one["labels"]) for one in (a, b))
    return PairedEvidence(
        lost=int((before & ~after).sum()), gained=int((~before & after).sum()), n=len(before)
    )
