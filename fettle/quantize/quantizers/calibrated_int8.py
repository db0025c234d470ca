"""Static int8 by calibration: the method chosen by measurement, layers sent back to keep a bound.

What is measured is measured on training images that the ranges were not found on, without labels:
the mean squared error of the logits, and the share of changed answers, against the float graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from fettle.errors import ModelError
from fettle.quantize import (
    float_fallback,
    float_fallback_rewrite,
    int8_dialects,
    static_int8,
)
from fettle.quantize.activation_ranges import Calibrate
from fettle.quantize.ort_quantizer import WeightBits
from fettle.quantize.qdq_graph import Coverage, CoverageFacts

Floats = npt.NDArray[np.float32]

RANKED_IMAGES = 48  # for the order of layers only: 0.12 s a layer at 32 px
METHODS: tuple[Calibrate, ...] = get_args(Calibrate)


class CalibrationFacts(CoverageFacts):
    """Calibration facts, as export's manifest says them."""

    calibrate: Calibrate
    calibrate_errors: dict[Calibrate, float]
    kept_float: list[str]
    disagreement: float
    disagreement_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedModel:
    """Calibrated model: the method chosen, layers made float again, and what the file then changes.

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

    def facts(self) -> CalibrationFacts:
        """Return what export's manifest says of it."""
        return {
            "calibrate": self.calibrate,
            "calibrate_errors": dict(self.errors),
            "kept_float": list(self.kept_float),
            "disagreement": self.disagreement,
            "disagreement_images": self.images,
            **self.coverage.facts(),
        }


def apply(
    model: Path,
    out: Path,
    *,
    batches: list[Floats],
    held_out: Floats,
    calibrate: Calibrate | Literal["auto"],
    weight_bits: WeightBits,
    disagreement_max: float,
    dialect: str = int8_dialects.CPU.name,
) -> CalibratedModel:
    """Write the int8 form of `model` to `out`: the best method, as many int8 layers as may be.

    Layers go back to float in the order of error regained per microsecond lost, the fewest that
    keep the bound. Raises ModelError when no number of them does, and what `static_int8.drafts`
    raises.
    """
    methods = METHODS if calibrate == "auto" else (calibrate,)
    drafts = static_int8.drafts(
        model,
        batches=batches,
        methods=methods,
        weight_bits=weight_bits,
        dialect=int8_dialects.named(dialect),
    )
    wanted = float_fallback.run(drafts[methods[0]].prepared, held_out)
    answers = {
        name: float_fallback.run(draft.quantized, held_out) for name, draft in drafts.items()
    }
    errors = {name: float(((logits - wanted) ** 2).mean()) for name, logits in answers.items()}
    best = min(methods, key=lambda name: (errors[name], methods.index(name)))
    chosen = drafts[best]
    seen = {0: float_fallback.disagreement(answers[best], wanted)}
    ranked: list[str] = []
    fewest: int | None = 0
    if seen[0] > disagreement_max:
        ranked = _ranked(chosen, held_out[:RANKED_IMAGES])

        def accept(count: int) -> bool:
            proto = float_fallback_rewrite.reverted(
                chosen.quantized, chosen.prepared, ranked[:count]
            )
            seen[count] = float_fallback.disagreement(float_fallback.run(proto, held_out), wanted)
            return seen[count] <= disagreement_max

        # the last one is kept int8: without any there is no int8 file
        fewest = float_fallback.fewest_layers(len(ranked) - 1, accept)
    if fewest is None:
        _refuse(model, seen, len(ranked), len(held_out), disagreement_max)
    kept = tuple(ranked[:fewest])
    return CalibratedModel(
        coverage=static_int8.finish(chosen, out, keep_float=kept),
        calibrate=best,
        errors=errors,
        kept_float=kept,
        disagreement=seen[fewest],
        images=len(held_out),
        evaluations=len(methods) + len(seen) - 1,
    )


def _refuse(
    model: Path, seen: Mapping[int, float], layers: int, count: int, most: float
) -> NoReturn:
    """Raise ModelError: no number of float layers keeps the bound."""
    raise ModelError(
        f"{model.name} cannot be quantized to int8 within the bound",
        got=f"{min(seen.values()):.1%} of {count} answers change, with up to "
        f"{max(seen)} of {layers} layers float",
        rule=f"at most {most:.1%} may (params.yaml: export.disagreement_max)",
        fix="raise export.disagreement_max or export.calibration_images, or drop the int8 targets",
    )


def _ranked(draft: static_int8.Int8Draft, images: Floats) -> list[str]:
    macs = float_fallback.macs(draft.prepared, images[:1])
    layers = float_fallback.rank_layers(draft.quantized, draft.prepared, images=images, macs=macs)
    return [layer.name for layer in layers]
