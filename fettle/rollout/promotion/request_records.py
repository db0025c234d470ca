"""Records that the gates read: attempts from the router's log, shadow pairs, late labels, inputs.

What counts as a failure is said here alone: the router's configuration is rendered from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# What the router sends again, to the champion: the user sees none of these, so the gates must. A
# 429 says that the arm cannot carry its traffic. router.conf.jinja is rendered from this list.
REPLAYED_STATUSES = (500, 502, 503, 504, 429)


def failed(status: int) -> bool:
    """Tell whether an answer's HTTP status is the arm's failure: none (0), a 5xx, or replayed."""
    return status == 0 or status >= 500 or status in REPLAYED_STATUSES


class Arm(StrEnum):
    """Which release answered."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One line of the router's log: one try of one request on one arm.

    `weight` is the challenger's share, 0 to 1, that the router used for this request. `assigned`
    is the arm that the router drew; `arm` the one that answered (they differ in a replay, which
    carries no evidence). `key_hash` is the sticky key's hash, None where assignment is random per
    request. `status` is the HTTP status, 0 where the connection died.
    """

    request_id: str
    time_s: float
    arm: Arm
    assigned: Arm
    weight: float
    status: int
    latency_ms: float
    replay: bool = False
    key_hash: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the arm is to blame (`failed`). A 4xx other than 429 is the client's own."""
        return failed(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPair:
    """One request answered by both arms, no user saw the challenger's; answers are class names.

    None as an answer: that arm failed. `label` where the truth is known (held-out requests).
    """

    request_id: str
    time_s: float
    champion: str | None
    challenger: str | None
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The truth of one live request, come late, joined by request id to its counted attempt."""

    request_id: str
    time_s: float
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InputObservation:
    """One input as seen by an arm: `bin_index` of its summary among the training reference's."""

    request_id: str
    time_s: float
    arm: Arm
    bin_index: int


Record = Attempt | ShadowPair | Label | InputObservation
