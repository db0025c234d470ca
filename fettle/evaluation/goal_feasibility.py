"""Goal feasibility: check params.yaml as soon as the row counts are known, before any training."""

from __future__ import annotations

from pydantic import JsonValue

from fettle import plugins
from fettle.errors import ParamsError
from fettle.evaluation import accuracy_budget
from fettle.hardware import energy_measurement
from fettle.params import Params
from fettle.params_schema import Budget, Constraints
from fettle.recorder import Recorder


def check(
    params: Params, *, classes: int, tested: int, least_class: int, recorder: Recorder
) -> None:
    """Refuse a goal that nothing can meet or measure here; note a budget below the noise.

    Needs "compress.budget", "compress.constraints", "compress.objective" and "targets" in SECTIONS.
    `tested` counts the test images, `least_class` those of the class with fewest. Raises
    ParamsError and TargetError.
    """
    if params.compress.objective.minimise == "energy_j":
        energy_measurement.check()
    check_limits(params.compress.constraints, classes, min_channels(params.targets))
    warn_of_noise(params.compress.budget, tested, recorder)
    warn_of_small_class(params.compress.budget, classes, least_class, recorder)


def decide_drop(asked: Budget, tested: int, recorder: Recorder) -> dict[str, JsonValue]:
    """Decide `drop_max: auto` by the number of test images, and say so; {} where a person did.

    Raises ParamsError for `by_images`, which nobody may state.
    """
    if isinstance(asked.by_images, int):
        raise ParamsError(
            "compress.budget.by_images is no parameter to set",
            got=f"{asked.by_images:,}",
            rule="it says how many test images chose drop_max, where that is auto",
            fix="take it out of params.yaml",
        )
    if asked.drop_max != "auto":
        return {}
    drop = accuracy_budget.least_decidable_drop(tested, confidence=asked.confidence)
    recorder.note(
        "decision",
        f"compress.budget.drop_max is {drop:g}: the least drop that n = {tested:,} test images can "
        f"decide at {asked.confidence:.0%}; their number chose it (auto), no person did",
    )
    return {"compress.budget.drop_max": drop, "compress.budget.by_images": tested}


def check_limits(constraints: Constraints, classes: int, features: int) -> None:
    """Raise ParamsError for a limit below the last layer alone, at its narrowest.

    It maps at least `features` channels to `classes` logits: one weight each, one byte a weight,
    one multiply-accumulate a weight.
    """
    least = classes * features
    limits = (
        ("size_bytes_max", constraints.size_bytes_max, "bytes"),
        ("params_max", constraints.params_max, "parameters"),
        ("macs_max", constraints.macs_max, "multiply-accumulates"),
    )
    for name, limit, unit in limits:
        if limit is not None and limit < least:
            raise ParamsError(
                f"compress.constraints.{name}: no model can be that small",
                got=f"{limit:,}",
                rule=f"its last layer alone, {features} channels to {classes} classes, has "
                f"{least:,} {unit}",
                fix=f"raise compress.constraints.{name}; nothing was trained",
            )


def min_channels(targets: list[str]) -> int:
    """Return the fewest channels that a layer may have: the targets' smallest vector width."""
    multiples = [
        plugins.resolve("targets", name, where="targets").TARGET.channel_multiple
        for name in targets
    ]
    return int(min(multiples))


def warn_of_noise(asked: Budget, tested: int, recorder: Recorder) -> None:
    """Note that `tested` images cannot decide an accuracy budget."""
    if asked.metric != "accuracy":
        return
    text = accuracy_budget.noise_warning(
        tested, drop_max=asked.drop_share, confidence=asked.confidence
    )
    if text:
        recorder.note("warning", text)


def warn_of_small_class(asked: Budget, classes: int, least_class: int, recorder: Recorder) -> None:
    """Note that the class with fewest test images cannot decide a budget of worst_recall."""
    if asked.metric != "worst_recall":
        return
    each = accuracy_budget.class_confidence(asked.confidence, classes)
    drop_max = asked.drop_share
    needed = accuracy_budget.min_sample_size(drop_max, confidence=each) if drop_max > 0 else None
    if needed is not None and least_class >= needed:
        return
    ask = "a budget above 0" if needed is None else f"{needed:,} of each class"
    recorder.note(
        "warning",
        f"compress.budget of worst_recall is judged class by class ({each:.2%} each, so that all "
        f"{classes} hold at once): with {least_class:,} test images of the smallest class not even "
        f"a lossless model is shown to drop at most {drop_max:g}; it takes {ask}. Raise "
        "ingest.split.test, add data, or raise compress.budget.drop_max",
    )
