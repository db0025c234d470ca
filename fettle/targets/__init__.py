"""One file per hardware target: a data record named TARGET, no code. The file name is its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a model must run.

    `runtime` is a file in fettle/runtimes. `dialect` is the int8 dialect of the target's family
    (None for float targets): one int8 file serves every target of one dialect. `channel_multiple`
    is the vector width that pruning rounds channels to. `machine` is what `platform.machine()`
    says there. `precision` w16, w8 and w4 are float16, int8 and int4 weights with float
    activations; dynamic_int8 finds the activations' ranges anew at each run.
    """

    hardware: str
    machine: tuple[str, ...]
    runtime: str
    precision: Literal["fp32", "bf16", "w16", "w8", "w4", "dynamic_int8", "int8"]
    dialect: Literal["qdq_u8s8"] | None
    channel_multiple: int
