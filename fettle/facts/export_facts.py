"""Export facts: a target's own file, or why it cannot be had."""

from __future__ import annotations

from collections.abc import Mapping

from fettle.facts.typed_document import TypedDocument


class ExportFacts(TypedDocument):
    """Facts of `stages/export.py`.

    `refused` says why the model cannot be had for this target: then nothing below it is there.
    `entry` is None when the runtime is missing here, and `unavailable` says why. What follows
    `macs` is there where the precision is quantized: `calibrate` is the method, chosen by
    `calibrate_errors` {method: mean squared error of the logits}; `disagreement` is the share of
    answers that differ from float, on `disagreement_images`; the operators are {operator: count}.
    `input_size_px` is compress's, handed on to those that read no facts of compress.
    """

    target: str
    hardware: str
    runtime: str
    version: str | None  # of the runtime
    precision: str
    dialect: str | None
    refused: str | None = None
    unavailable: str | None = None
    entry: str | None = None
    size_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    input_size_px: int | None = None
    calibration_images: int | None = None
    calibrate: str | None = None
    calibrate_errors: Mapping[str, float] | None = None
    kept_float: tuple[str, ...] | None = None  # layers that went back to float
    kept_int8: tuple[str, ...] | None = None  # layers whose weights stay int8 in an int4 file
    disagreement: float | None = None
    disagreement_images: int | None = None
    quantized_ops: Mapping[str, int] | None = None
    float_ops: Mapping[str, int] | None = None
