"""Int8 dialects of a QDQ graph: what one hardware family takes and another refuses or misreads.

A file of the wrong dialect may load and answer nonsense: symmetric signed activations, which
TensorRT asks for, gave a cosine of -0.65 on Qualcomm's Hexagon, with no error. So a target names
its dialect, its runtime refuses a file of another, and each is written by its own rules:

    qdq_u8s8              ONNX Runtime and OpenVINO on CPUs: unsigned activations, signed weights
                          per channel; what int8 does not speed up stays float, the answer too
    qdq_u8s8_whole        NPUs: as that, but nothing stays float by rule, and the answer has a
                          Q/DQ pair: Hexagon refuses a layer that has none behind it
    qdq_s8s8_symmetric    TensorRT: every zero point 0, pairs before Conv, Gemm and Add only,
                          weights in float behind a pair of their own, biases in float
"""

from __future__ import annotations

from dataclasses import dataclass

from fettle.errors import TargetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Dialect:
    """An int8 dialect: what a file of it looks like.

    `float_head`: the convolutions at the image stay float (operator_placement.py). `answer_pair`:
    the logits are rounded to 256 steps. `symmetric`: activations are signed, their zero points 0;
    `only_before` names the operators whose inputs get a pair, nothing else gets one (empty: all).
    """

    name: str
    float_head: bool = False
    answer_pair: bool = True
    symmetric: bool = False
    only_before: tuple[str, ...] = ()


DIALECTS = (
    Int8Dialect(name="qdq_u8s8", float_head=True, answer_pair=False),
    Int8Dialect(name="qdq_u8s8_whole"),
    Int8Dialect(
        name="qdq_s8s8_symmetric",
        answer_pair=False,
        symmetric=True,
        only_before=("Conv", "Gemm", "Add"),
    ),
)
CPU = DIALECTS[0]


def named(name: str) -> Int8Dialect:
    """Return the record of a dialect; raises TargetError with the choices."""
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    raise TargetError(
        "unknown int8 dialect",
        got=f"'{name}'",
        rule=f"the choices are {', '.join(dialect.name for dialect in DIALECTS)}",
        fix="name one of them in the target's record (fettle/hardware/targets)",
    )
