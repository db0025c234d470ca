"""Acceptance criteria of a target's file: nothing slower than the float model ships, nor broken.

A reason is one sentence with the numbers it rests on.
"""

from __future__ import annotations

from dataclasses import dataclass

from fettle.facts.answer_parity import AnswerParity
from fettle.hardware import precisions
from fettle.measure import Measure

# The least share of its rival's bytes that a file no faster must save. Felt right: int8 saves two
# thirds and more, and a twentieth pays for no second toolchain.
SAVED_MIN = 0.05


@dataclass(frozen=True, slots=True)
class Baseline:
    """Baseline that a file is compared with: a name for the sentence, its bytes, the speed-up over
    it.
    """

    name: str
    size_bytes: int
    speedup: Measure


def parity_failure(precision: str, parity: AnswerParity) -> str | None:
    """Parity failure: why the answers are too far from the reference's to be measured further, or
    None.
    """
    least = precisions.named(precision).top1_min
    if parity.top1 >= least:
        return None
    return (
        f"it answers otherwise than the compressed model: same winner on {parity.top1:.1%} of "
        f"the parity images, at least {least:.0%} is wanted of {precision} "
        f"(cosine {parity.cosine:.4f}, largest difference {parity.max_abs:.3g})"
    )


def is_faster(size_bytes: int, best: Baseline) -> tuple[bool, str]:
    """Tell whether a file is shown to be faster than the float model in its best runtime.

    Shown is: the interval of its speed-up lies above 1. A smaller file that is slower is refused.
    """
    shown = _end(best.speedup.low) > 1
    word = "faster" if shown else "not shown to be faster"
    size = f"{size_bytes:,} bytes against its {best.size_bytes:,}"
    return shown, f"{word}: {_ratio(best.speedup)} the speed of {best.name}, {size}"


def pays(size_bytes: int, rival: Baseline) -> tuple[bool, str]:
    """Gain in speed or size: whether a file is faster (its interval lies above 1) or smaller than
    its rival.

    Smaller is: by SAVED_MIN of the rival's bytes at least.
    """
    faster = _end(rival.speedup.low) > 1
    smaller = size_bytes <= (1 - SAVED_MIN) * rival.size_bytes
    speed = f"{_ratio(rival.speedup)} the speed of {rival.name}"
    size = f"{size_bytes:,} bytes against its {rival.size_bytes:,}"
    if faster or smaller:
        return True, f"{_gains(faster, smaller)}: {speed}, {size}"
    return False, f"neither faster nor {SAVED_MIN:.0%} smaller: {speed}, {size}"


def _end(low: float | None) -> float:
    """Read a missing end as no evidence of a gain."""
    return 0.0 if low is None else low


def _gains(faster: bool, smaller: bool) -> str:
    return "faster and smaller" if faster and smaller else "faster" if faster else "smaller"


def _ratio(speedup: Measure) -> str:
    if speedup.low is None:
        return f"{speedup.value:.2f}x"
    return f"{speedup.value:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})"
