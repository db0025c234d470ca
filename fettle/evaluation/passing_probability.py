"""Passing probability: how test will judge the budget, forecast on validation.

What is at least ACCEPT_SHARE times as likely to pass on test as a truly lossless model would be is
inside: so a budget below the noise still gets the best there is, and the verdict says that it is
undecidable. Of the test set its size alone is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fettle import manifest
from fettle.evaluation import accuracy_budget, accuracy_statistics
from fettle.evaluation.accuracy_budget import PairedCounts
from fettle.evaluation.accuracy_statistics import Floats, Labels
from fettle.facts.validate_facts import ValidateFacts
from fettle.params_schema import Budget

# 0.75 let in, on digits, what holds on test two times in three; a model that loses one validation
# image of 179 and gains none is let in from 0.83 downwards (ADR 0029).
ACCEPT_SHARE = 0.85
PAIRS_PER_DROP = 1.5  # discordant pairs of a worse model per lost one: 1.2 to 2 on digits


@dataclass(frozen=True, slots=True)
class PassingForecast:
    """A model's drop of the budget's metric on validation, and how likely the budget holds on test.

    Both lie in shares; `chance_min` is the least that counts as inside.
    """

    drop: float
    chance: float
    chance_min: float

    @property
    def inside(self) -> bool:
        """Whether the model is taken to be inside the budget."""
        return self.chance >= self.chance_min


def forecast_passing(
    asked: Budget, reference: Floats, candidate: Floats, labels: Labels, *, tested: int
) -> PassingForecast:
    """Forecast from a model's answers to the validation images and the float model's.

    reference, candidate: logits [n, classes]; labels: [n]; `tested` counts the test images.
    """
    chance = accuracy_budget.forecast_passing(
        asked.metric,
        reference,
        candidate,
        labels,
        _decisive_size(asked, tested),
        drop_max=asked.drop_share,
        confidence=asked.confidence,
    )
    drop = accuracy_statistics.drop(asked.metric, reference, candidate, labels).value
    return PassingForecast(drop, chance, probability_min(asked, seen=len(labels), tested=tested))


def probability_for_drop(asked: Budget, drop: float, *, seen: int, tested: int) -> float:
    """Probability that the budget holds on `tested` images for a point drop on `seen` ones, with
    as many flips as such a drop comes with.
    """
    flips = min(1.0, max(accuracy_budget.FLIP_SHARE, PAIRS_PER_DROP * abs(drop)))
    counts = PairedCounts(lost=(flips + drop) / 2 * seen, gained=(flips - drop) / 2 * seen, n=seen)
    n = _decisive_size(asked, tested)
    return accuracy_budget.predictive_probability(
        counts, n, drop_max=asked.drop_share, confidence=asked.confidence
    )


def _decisive_size(asked: Budget, tested: int) -> int:
    """Return the size of test set to forecast for: of one on which no model could pass, however
    good, twice the least on which one could, or every model would look alike.
    """
    if asked.drop_share == 0:
        return tested
    least = accuracy_budget.min_sample_size(asked.drop_share, confidence=asked.confidence)
    return tested if tested >= least else 2 * least


def probability_min(asked: Budget, *, seen: int, tested: int) -> float:
    """Return the probability from which on a model is taken to be inside the budget."""
    return ACCEPT_SHARE * probability_for_drop(asked, 0.0, seen=seen, tested=tested)


def count_tested(validated: Path) -> int:
    """Count the test images that passed validation, from validate's artefact."""
    facts = manifest.read(validated, ValidateFacts, verify=False).facts
    return sum(splits["test"] for splits in facts.classes.values())
