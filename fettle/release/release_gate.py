"""Release gate: two models' answers to the test images become figures, checks and a verdict.

Pure: the stage that scores the test split calls it (stages/verdict.py), and so does who derives a
release's figures again from the answers that it carries (fettle/release/release_verification.py).
Answers are logits or probabilities [images, classes]; of them only the class answered and its
probability count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fettle.evaluation import (
    accuracy_budget,
    accuracy_statistics,
    licence_check,
    per_class_accuracy,
)
from fettle.evaluation.accuracy_statistics import Floats, Labels
from fettle.facts.asked_goal import AskedBudget
from fettle.facts.verdict_facts import (
    AskedBounds,
    AskedLimit,
    BudgetStatus,
    ModelCounts,
    RowsLedger,
)
from fettle.measure import Measure
from fettle.params_schema import Budget, Limit

SPLIT = "test"
DROPPED = "recall_drop."


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """Both models' answers to the same images: the float model's, the released file's."""

    before: Floats
    after: Floats
    labels: Labels
    classes: Sequence[str]


@dataclass(frozen=True, slots=True)
class GateJudgement:
    """Whether every bound holds; every check as a sentence, those that failed again."""

    passed: bool
    reasons: tuple[str, ...]
    failed: tuple[str, ...]
    budget: BudgetStatus


def compare(answers: PairedAnswers) -> dict[str, Measure]:
    """Compare every metric of both models, and the paired drops, of each class too."""
    before, after, labels = answers.before, answers.after, answers.labels
    first = accuracy_statistics.summary(before, labels)
    classes = list(answers.classes)
    recalls = {
        "recall": accuracy_statistics.recall_measures(after, labels, classes),
        "float_recall": accuracy_statistics.recall_measures(before, labels, classes),
    }
    drops = per_class_accuracy.recall_drops(before, after, labels, classes)
    return {
        **accuracy_statistics.summary(after, labels),
        **{f"float_{name}": measure for name, measure in first.items()},
        **{f"{name}_drop": accuracy_statistics.drop(name, before, after, labels) for name in first},
        **{
            f"{kind}.{name}": measure
            for kind, per_class in recalls.items()
            for name, measure in per_class.items()
        },
        "churn": accuracy_statistics.churn(before, after),
        **{f"{DROPPED}{name}": measure for name, measure in drops.items()},
    }


def size_ratios(float_model: ModelCounts, shipped: ModelCounts) -> dict[str, Measure]:
    """Say how many times fewer parameters, multiply-accumulates and bytes the released file has."""
    sizes = {
        "params_ratio": float_model.parameters / shipped.parameters,
        "macs_ratio": float_model.macs / shipped.macs,
        "size_ratio": float_model.size_bytes / shipped.size_bytes,
    }
    return {name: Measure(value=value, unit="x", n=1) for name, value in sizes.items()}


def judge(
    answers: PairedAnswers,
    measures: Mapping[str, Measure],
    bounds: AskedBounds,
    *,
    over: Sequence[str],
    licences: Mapping[str, str | None],
    ledger: RowsLedger | None = None,
) -> GateJudgement:
    """Judge the figures of `compare`; `over` are the limits that the file broke before.

    `licences` are those of the data and the model, None where nobody states one. How often the
    images have judged (`ledger`) is said and changes no verdict.
    """
    asked = bounds.budget
    judgement = accuracy_budget.judge(
        asked.metric,
        answers.before,
        answers.after,
        answers.labels,
        drop_max=asked.drop_max,
        confidence=asked.confidence,
    )
    drops = {
        name.removeprefix(DROPPED): measure
        for name, measure in measures.items()
        if name.startswith(DROPPED)
    }
    checks = [
        check_budget(measures, asked, judgement),
        *((False, text) for text in over),
        *check_limits(measures, bounds.limits),
        *check_classes(drops, bounds.class_drop_max),
        *licence_check.check(bounds.licences_allow, licences),
        *check_smoke(bounds.smoke_images),
        *((True, text) for text in warn_of_looks(ledger, asked.confidence, len(answers.labels))),
    ]
    return GateJudgement(
        passed=all(holds for holds, _ in checks),
        reasons=tuple(text for _, text in checks),
        failed=tuple(text for holds, text in checks if not holds),
        budget=BudgetStatus(
            status=judgement.status, bound=judgement.bound, n_needed=judgement.n_needed
        ),
    )


def check_budget(
    measures: Mapping[str, Measure],
    asked: Budget | AskedBudget,
    judgement: accuracy_budget.BudgetJudgement,
) -> tuple[bool, str]:
    """Budget check: whether the drop's upper bound lies within the budget, in a sentence."""
    drop, met = measures[f"{asked.metric}_drop"], judgement.status == "met"
    whose = "compress.budget"
    if asked.by_images is not None:
        whose = (
            f"compress.budget.drop_max: auto, the least that n = {asked.by_images:,} test images "
            "can decide; their number chose it, no person did"
        )
    text = (
        f"{asked.metric} drops by {_show(drop)} on {SPLIT}; the {asked.confidence:.0%} upper bound "
        f"{judgement.bound:.4f} is {'within' if met else 'above'} the budget of {asked.drop_max:g} "
        f"({whose})"
    )
    if judgement.status == "undecided":
        needs = (
            f"about {judgement.n_needed:,} test images would show whether it holds"
            if judgement.n_needed
            else "no number of test images would show it to hold"
        )
        text += f": undecidable with n = {drop.n:,}, {needs}"
    return met, text


def check_limits(
    measures: Mapping[str, Measure], limits: Sequence[Limit | AskedLimit]
) -> list[tuple[bool, str]]:
    """Limit check on the test figures: whether it holds, and a sentence."""
    checks = []
    for index, limit in enumerate(limits):
        taken = measures[limit.metric]
        bounds = (
            ("at least", limit.min, limit.min is None or taken.value >= limit.min),
            ("at most", limit.max, limit.max is None or taken.value <= limit.max),
        )
        for side, bound, holds in bounds:
            if bound is not None:
                sentence = (
                    f"{limit.metric} is {_show(taken)} on {SPLIT}, "
                    f"{'' if holds else 'not '}{side} {bound:g} (verdict.limits[{index}])"
                )
                checks.append((holds, sentence))
    return checks


def check_classes(drops: Mapping[str, Measure], drop_max: float | None) -> list[tuple[bool, str]]:
    """Class check, the recall each may lose: one sentence, about those that lost more."""
    if drop_max is None:
        return []
    rule = f"{drop_max:g} (verdict.class_drop_max)"
    gone = per_class_accuracy.classes_over_limit(drops, drop_max)
    if not gone:
        return [(True, f"no class is shown to lose more recall on {SPLIT} than {rule}")]
    shown = ", ".join(f"'{name}' {_show(drops[name])}" for name in gone)
    return [(False, f"recall drops on {SPLIT} by more than {rule}: {shown}")]


def check_smoke(images: tuple[int, int] | None) -> list[tuple[bool, str]]:
    """Smoke-run check: whatever its figures are, it ships nothing."""
    if images is None:
        return []
    taken, whole = images
    text = f"a smoke run on {taken:,} of {whole:,} images (ingest.limit): it ships nothing"
    return [(False, text)]


def warn_of_looks(ledger: RowsLedger | None, confidence: float, images: int) -> list[str]:
    """Say what a bound is worth on images that judged before; nothing of the first verdict."""
    if ledger is None or ledger.verdicts < 2:
        return []
    looks, alpha = ledger.verdicts, 1 - confidence
    files = "1 file" if ledger.models == 1 else f"{ledger.models} files"
    together = max(0.0, 1 - looks * alpha)
    worth = (
        f"hold together with {together:.0%} at least"
        if together > 0
        else "need not hold together at all"
    )
    return [
        f"warning: these {images:,} test images have judged {looks} times ({files}), each bound at "
        f"{confidence:.0%}; the {looks} {worth} (union bound). New test images would judge this "
        "one alone"
    ]


def _show(measure: Measure) -> str:
    if measure.low is None or measure.high is None:
        return f"{measure.value:.4f} (n = {measure.n})"
    return f"{measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f}, n = {measure.n})"
