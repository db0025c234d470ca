"""Input choice: what the family's record makes of `auto` in the params, and why, in words.

The finetune stage asks once; its readers find the decided values among its facts
(fettle/params_scope.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from fettle.models import input_size
from fettle.models.input_record import InputRecord
from fettle.params import Params


def choose(
    params: Params, record: InputRecord, shorter_px: Sequence[int]
) -> tuple[dict[str, JsonValue], list[str]]:
    """Return {key of params.yaml: decided value} and a line a decision; nothing where all is said.

    `shorter_px` are the shorter sides of the training images.
    """
    section, decided, said = params.preprocess, dict[str, JsonValue](), list[str]()
    if section.size_px == "auto":
        found = input_size.choose(shorter_px, record)
        decided["preprocess.size_px"] = found.size_px
        said.append(f"preprocess.size_px is {found.size_px}: {found.reason}")
    for name in ("mean", "std"):
        if getattr(section, name) == "auto":
            decided[f"preprocess.{name}"] = getattr(record, name)
    if params.finetune.freeze_batchnorm == "auto":
        decided["finetune.freeze_batchnorm"] = record.pretrained
    if levels := [key for key in decided if key in ("preprocess.mean", "preprocess.std")]:
        shown = " and ".join(f"{key} is {decided[key]:g}" for key in levels)
        whose = "as the family's weights expect" if record.native else "the usual, nothing is known"
        said.append(f"{shown}: {whose}")
    return decided, said
