"""Verdict of a gate, and of many gates together: the worst of them; none at all fails closed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a gate, or all of them, say; only PASS ever raises a weight."""

    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"
    ERROR = "ERROR"


# From best to worst. FAIL outranks ERROR: proof that the challenger harms is acted on even while
# another gate is broken; a broken gate outranks a missing one.
_ORDER = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL)


@dataclass(frozen=True, slots=True)
class Tally:
    """What one arm showed: `events` (errors, slow or wrong answers) among `n` that count."""

    events: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate's verdict with all that it rests on.

    `evidence` is an e-value, 0 or more; at `threshold` it decides. For a FAIL it speaks for
    rollback, else for promotion. An offline gate has the measured value and its bound there.
    """

    name: str
    verdict: Verdict
    reason: str
    champion: Tally | None = None
    challenger: Tally | None = None
    evidence: float | None = None
    threshold: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form, as `fettle canary status --json` prints it."""
        return asdict(self)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of them; of none, INCONCLUSIVE: no evidence never promotes."""
    return max(verdicts, key=_ORDER.index, default=Verdict.INCONCLUSIVE)
