"""Precisions: one record each, all that the house knows about fp32, int8, int4 weights and so on.

An entry of PRECISIONS is the whole of a precision: targets name it, `export` quantizes by it,
`evaluate` holds its answers to its floor, the search counts its bytes, the latency table times
kernels in its form and the report's ladder takes its place in the list, from the most exact down.
Nothing else compares a precision's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fettle import plugins
from fettle.errors import TargetError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    QuantizerArgument = list[Floats] | Floats | str | float  # images, or a setting of params.yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """A number format of weights and activations, and how a file in it is made and judged.

    `bytes_per_weight` is what a weight takes in the file. `top1_min` is the parity floor: the share
    of parity images whose winner must stay. `quantizer` is the file in
    fettle/quantize/quantizers whose `apply` makes it (see Quantizer), None where the float file is
    taken as it is. `needs_calibration`: it is fitted to training images; `settings` are the keys of
    params.yaml's `export` that it takes. `in_bfloat16`: the runtime computes what is float in
    bfloat16. `dialects` are the integer dialects that such files are written in, of which a target
    names one; with several, its quantizer is told which. Those that are `toolchain_dialects` too
    are made by the target's own toolchain, from the float model and calibration images.
    `timed_as_int8`: the latency table times kernels of a static int8 form, made from noise, in
    place of the float form's. `saturates_without_vnni`: an ONNX file of it answers otherwise on x86
    without VNNI, so evaluate emulates that. `side_step`: what is below it in the list isn't held
    against it in the report.
    """

    name: str
    bytes_per_weight: float
    top1_min: float
    quantizer: str | None = None
    needs_calibration: bool = False
    settings: tuple[str, ...] = ()
    in_bfloat16: bool = False
    dialects: tuple[str, ...] = ()
    toolchain_dialects: tuple[str, ...] = ()
    timed_as_int8: bool = False
    saturates_without_vnni: bool = False
    side_step: bool = False

    @property
    def is_float32(self) -> bool:
        """Whether a file of it is the compressed model itself, computed as it is stored."""
        return self.quantizer is None and not self.in_bfloat16 and not self.dialects


# `top1_min` catches a broken file, no more: quality has its budget in `select`. Sound int8 kept
# 0.93 and more here, on a half-trained net and on noise too; weights per tensor kept 0.49. fp32 and
# w16 differ by rounding alone; bf16, w8 and dynamic int8 (linear layers only) lie between. w4 kept
# 0.98 of test images and 0.86 of noise.
PRECISIONS = (
    Precision(name="fp32", bytes_per_weight=4, top1_min=0.99),
    Precision(name="bf16", bytes_per_weight=4, top1_min=0.9, in_bfloat16=True),
    Precision(
        name="w16",
        bytes_per_weight=2,
        top1_min=0.99,
        quantizer="weight_fp16",
    ),
    Precision(
        name="fixed",
        bytes_per_weight=2,
        top1_min=0.9,
        dialects=("ap_fixed",),
        toolchain_dialects=("ap_fixed",),
        side_step=True,
    ),
    Precision(
        name="w8",
        bytes_per_weight=1,
        top1_min=0.9,
        quantizer="weight_int8",
    ),
    Precision(
        name="w4",
        bytes_per_weight=0.5,
        top1_min=0.8,
        quantizer="weight_int4",
        needs_calibration=True,
        settings=("disagreement_max",),
        side_step=True,
    ),
    Precision(
        name="dynamic_int8",
        bytes_per_weight=4,  # convolutions stay float, and they are most of a network
        top1_min=0.9,
        quantizer="dynamic_int8",
    ),
    Precision(
        name="int8",
        bytes_per_weight=1,
        top1_min=0.8,
        quantizer="calibrated_int8",
        needs_calibration=True,
        settings=("calibrate", "weight_bits", "disagreement_max"),
        dialects=("qdq_u8s8", "qdq_u8s8_whole", "qdq_s8s8_symmetric", "litert"),
        toolchain_dialects=("litert",),
        timed_as_int8=True,
        saturates_without_vnni=True,
    ),
)


class Quantized(Protocol):
    """Quantized model's facts, as a quantizer hands them back."""

    def facts(self) -> Mapping[str, object]:
        """Return what was stored how, by names of ExportFacts; quantized_ops, float_ops."""


class Quantizer(Protocol):
    """Write the ONNX `model` in a precision to `out`.

    A precision that needs calibration also gets `batches` (a list) and `held_out`, both normalised
    training images [n, C, H, W], and each gets its settings by name. Raises ModelError.
    """

    def __call__(self, model: Path, out: Path, **given: QuantizerArgument) -> Quantized:
        """Quantize."""


def names() -> list[str]:
    """List the precisions, from the most exact down."""
    return [precision.name for precision in PRECISIONS]


def named(name: str) -> Precision:
    """Return the record of a precision; raises TargetError with the choices."""
    for precision in PRECISIONS:
        if precision.name == name:
            return precision
    raise TargetError(
        "unknown precision",
        got=f"'{name}'{plugins.suggest(name, names())}",
        rule=f"the choices are the entries of fettle/hardware/precisions.py: {', '.join(names())}",
        fix="name one of them in the target's record, or add an entry",
    )


def load_quantizer(precision: Precision) -> Quantizer | None:
    """Import the function that quantizes to `precision`, only now: None where nothing is done."""
    if precision.quantizer is None:
        return None
    plugin = plugins.resolve(
        "quantizers", precision.quantizer, where="fettle/hardware/precisions.py"
    )
    quantizer: Quantizer = plugin.apply
    return quantizer
