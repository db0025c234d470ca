"""Answer gate: whether a file that was never timed may ship, by its answers and the budget alone.

The same images, the same paired bound and the same budget for every such target, whatever
emulated or simulated it. Below `accuracy_images_min` images a bound within the budget is luck as
often as not, unless a wider budget was stated for this target: then it is inconclusive, and does
not ship.
"""

from __future__ import annotations

from dataclasses import dataclass

from fettle.evaluation import accuracy_budget
from fettle.evaluation.accuracy_statistics import Floats, Labels
from fettle.facts.evaluate_facts import ShipVerdict
from fettle.params_schema import Budget


@dataclass(frozen=True, slots=True)
class AnswerVerdict:
    """Answer verdict: what becomes of the file, and the sentence that says why."""

    verdict: ShipVerdict
    reason: str


def judge(
    asked: Budget,
    reference: Floats,
    candidate: Floats,
    labels: Labels,
    *,
    stated: float | None,
    images_min: int,
) -> AnswerVerdict:
    """Judge by the paired drop: logits [n, classes] of the float model and of the file, labels [n].

    `stated` is this target's own largest drop (evaluate.drop_max_of_target), None where it has
    none.
    """
    drop_max = asked.drop_share if stated is None else stated
    wider = stated is not None and stated > asked.drop_share
    n = len(labels)
    found = accuracy_budget.judge(
        asked.metric,
        reference,
        candidate,
        labels,
        drop_max=drop_max,
        confidence=asked.confidence,
    )
    key = "compress.budget" if stated is None else "evaluate.drop_max_of_target"
    bound = (
        f"the {asked.confidence:.0%} upper bound of its drop in {asked.metric} is "
        f"{found.bound:.4f} on {n:,} validation images, the budget {drop_max:g} ({key})"
    )
    if found.status == "exceeded":
        return AnswerVerdict("refused", f"it drops by more than the budget: {bound}")
    if found.status == "undecided":
        needs = f"; about {found.n_needed:,} images would decide it" if found.n_needed else ""
        return AnswerVerdict("inconclusive", f"too few images to tell: {bound}{needs}")
    if n < images_min and not wider:
        return AnswerVerdict(
            "inconclusive",
            f"too few images to tell: {bound}, but {images_min:,} images are wanted "
            "(evaluate.accuracy_images_min), or a wider budget for this target "
            "(evaluate.drop_max_of_target)",
        )
    return AnswerVerdict("ship", f"within the budget: {bound}")
