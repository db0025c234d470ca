"""Check the images that int8 ranges are found on, choose the method by measurement, keep the bound.

What is measured is measured on training images that the ranges were not found on, without labels:
the mean squared error of the logits, and the share of changed answers, against the float graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fettle.errors import DataError, ModelError
from fettle.quantize import float_fallback, float_fallback_rewrite
from fettle.quantize.activation_ranges import Calibrate
from fettle.quantize.ort_quantizer import WeightBits
from fettle.quantize.qdq_graph import Coverage
from fettle.quantize.quantizers import static_int8

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer]

IMAGES_MIN = 8  # params.yaml's own least; a training split may have fewer
RANKED_IMAGES = 48  # for the order of layers only: 0.12 s a layer at 32 px
METHODS: tuple[Calibrate, ...] = get_args(Calibrate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was chosen: the method, layers made float again, and what the file then changes.

    `errors` {method: mean squared error of the logits}; `disagreement` is the share of answers
    that differ from the float graph's on `images` held-out images, after `evaluations` files.
    """

    coverage: Coverage
    calibrate: Calibrate
    errors: Mapping[Calibrate, float]
    kept_float: tuple[str, ...]
    disagreement: float
    images: int
    evaluations: int

    def facts(self) -> dict[str, Any]:  # Any: JSON
        """Return what export's manifest says of it."""
        return {
            "calibrate": self.calibrate,
            "calibrate_errors": dict(self.errors),
            "kept_float": list(self.kept_float),
            "disagreement": self.disagreement,
            "disagreement_images": self.images,
            **self.coverage.facts(),
        }


def check(pixels: npt.NDArray[np.uint8], labels: Labels, logits: Floats) -> None:
    """Refuse calibration images [n, C, S, S] that say nothing about the data.

    `logits` [n, classes] are the float model's answers to them. The ranges need no labels: these
    only tell a model that knows the data from one that does not. Raises DataError.
    """
    count = len(pixels)
    flat = pixels.reshape(count, -1)
    known = float((logits.argmax(axis=1) == labels).mean()) if count else 0.0
    if count < IMAGES_MIN:
        _refuse(f"{count} images", f"at least {IMAGES_MIN} are needed")
    if (flat == flat[:1]).all() or (flat.min(axis=1) == flat.max(axis=1)).all():
        _refuse(
            f"{count} images without any difference between or within them",
            "a range can only be found on images that vary",
        )
    if len(np.unique(labels)) < 2:
        _refuse(f"{count} images of one class", "they must come from two classes or more")
    guessed = 1 / logits.shape[1]
    if known <= guessed:
        _refuse(
            f"images of which the float model is right on {known:.0%}",
            f"guessing gets {guessed:.0%}: the labels are wrong, the images are, or the model "
            "learnt nothing",
        )


def _refuse(got: str, rule: str) -> None:
    raise DataError(
        "the calibration images cannot give int8 ranges",
        got=got,
        rule=rule,
        fix="look at the training split (fettle report), or raise export.calibration_images "
        "(params.yaml)",
    )


def tune(
    model: Path,
    out: Path,
    *,
    batches: list[Floats],
    held_out: Floats,
    calibrate: Calibrate | Literal["auto"],
    weight_bits: WeightBits,
    disagreement_max: float,
) -> Tuned:
    """Write the int8 form of `model` to `out`: the best method, as many int8 layers as may be.

    Layers go back to float in the order of error regained per microsecond lost, the fewest that
    keep the bound. Raises ModelError when no number of them does, and what `int8_qdq.apply` raises.
    """
    methods = METHODS if calibrate == "auto" else (calibrate,)
    drafts = static_int8.drafts(model, batches=batches, methods=methods, weight_bits=weight_bits)
    wanted = float_fallback.run(drafts[methods[0]].prepared, held_out)
    answers = {name: float_fallback.run(one.quantized, held_out) for name, one in drafts.items()}
    errors = {name: float(((logits - wanted) ** 2).mean()) for name, logits in answers.items()}
    best = min(methods, key=lambda name: (errors[name], methods.index(name)))
    chosen = drafts[best]
    seen = {0: float_fallback.differ(answers[best], wanted)}
    ranked: list[str] = []
    fewest: int | None = 0
    if seen[0] > disagreement_max:
        ranked = _ranked(chosen, held_out[:RANKED_IMAGES])

        def accept(count: int) -> bool:
            proto = float_fallback_rewrite.reverted(
                chosen.quantized, chosen.prepared, ranked[:count]
            )
            seen[count] = float_fallback.differ(float_fallback.run(proto, held_out), wanted)
            return seen[count] <= disagreement_max

        # the last one is kept int8: without any there is no int8 file
        fewest = float_fallback.fewest(len(ranked) - 1, accept)
    if fewest is None:
        raise ModelError(
            f"{model.name} cannot be quantized to int8 within the bound",
            got=f"{min(seen.values()):.1%} of {len(held_out)} answers change, with up to "
            f"{max(seen)} of {len(ranked)} layers float",
            rule=f"at most {disagreement_max:.1%} may (params.yaml: export.disagreement_max)",
            fix="raise export.disagreement_max or export.calibration_images, or drop the int8 "
            "targets",
        )
    kept = tuple(ranked[:fewest])
    return Tuned(
        coverage=static_int8.finish(chosen, out, keep_float=kept),
        calibrate=best,
        errors=errors,
        kept_float=kept,
        disagreement=seen[fewest],
        images=len(held_out),
        evaluations=len(methods) + len(seen) - 1,
    )


def _ranked(made: static_int8.Draft, images: Floats) -> list[str]:
    macs = float_fallback.macs(made.prepared, images[:1])
    layers = float_fallback.rank(made.quantized, made.prepared, images=images, macs=macs)
    return [one.name for one in layers]
