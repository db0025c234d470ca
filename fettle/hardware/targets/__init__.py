"""One file per hardware target: a data record named TARGET, no code. The file name is its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fettle.errors import TargetError
from fettle.hardware import precisions

# What can be known of a target's file here, the strongest first: timed on the hardware itself; run
# under an emulator (answers, no speed); modelled by a vendor's tool; made, and nothing more.
EvidenceKind = Literal["measured", "emulated", "estimated", "compile-only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a model must run.

    `runtime` is a file in fettle/hardware/runtimes. `precision` is an entry of
    fettle/hardware/precisions.py: w16, w8 and w4 are float16, int8 and int4 weights with float
    activations; dynamic_int8 finds the activations' ranges anew at each run. `dialect` is one of
    the precision's (None where it has none): one int8 file serves every target of one dialect.
    `channel_multiple` is the vector width that pruning rounds channels to. `machine` is what
    `platform.machine()` says there. `family` groups hardware that takes the same kind of file.
    `evidence` is the strongest that can be had of its file here: only what is "measured" is timed
    and may be the served file. The others go through the same export and are judged by their
    answers (fettle/evaluation/answer_gate.py), but "compile-only" has none and never ships.
    `device` is which of its runtime's devices, in the toolchain's own words. `next_command` is what
    a user who has the hardware runs next.
    """

    hardware: str
    family: str
    machine: tuple[str, ...]
    runtime: str
    precision: str
    dialect: str | None
    channel_multiple: int
    evidence: EvidenceKind = "measured"
    device: str = ""
    next_command: str = "fettle run"

    def __post_init__(self) -> None:
        """Refuse an unknown precision, and a dialect that is not one of the precision's."""
        dialects = precisions.named(self.precision).dialects
        if self.dialect not in (dialects or (None,)):
            raise TargetError(
                f"a target of precision {self.precision} names the wrong dialect",
                got=repr(self.dialect),
                rule=f"{self.precision} files are in {' or '.join(dialects) or 'no dialect'}",
                fix=f"set dialect to {' or '.join(map(repr, dialects)) or None} in its record",
            )
