"""Records that the gates read: attempts from the router's log, shadow pairs, late labels, inputs.

What counts as a failure is said here alone: the router's configuration is rendered from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# What the router sends again, to the champion: the user sees none of these, so the gates must. A
# 429 says that the arm cannot carry its traffic. router.conf.jinja is rendered from this list.
REPLAYED_STATUSES = (500, 502, 503, 504, 429)


# nginx's own: the caller left before there was an answer. The time waited is a latency's least.
CLIENT_GONE = 499
# nginx's clock has whole milliseconds: two of its times are as far apart by rounding alone.
ROUTER_MS = 1.0


def failed(status: int) -> bool:
    """Tell whether an answer's HTTP status is the arm's failure: none (0), a 5xx, or replayed."""
    return status == 0 or status >= 500 or status in REPLAYED_STATUSES


def refused(status: int) -> bool:
    """Tell whether an arm refused: any other 4xx. A caller's mistake, until one arm has more."""
    return 400 <= status < 500 and status != CLIENT_GONE and not failed(status)


def judged_ms(router_ms: float, own_ms: float | None) -> float:
    """Return the latency that counts: the release's own finer time where the router saw the same.

    Where the two differ by more than rounding, the larger: nobody gains by reporting less.
    """
    if own_ms is None:
        return router_ms
    return own_ms if abs(router_ms - own_ms) <= ROUTER_MS else max(router_ms, own_ms)


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
    request. `status` is the HTTP status, 0 where the connection died. `latency_ms` is `judged_ms`.
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
        """Whether the arm is to blame (`failed`)."""
        return failed(self.status)

    @property
    def refused(self) -> bool:
        """Whether it was refused (`refused`)."""
        return refused(self.status)

    @property
    def gone(self) -> bool:
        """Whether the caller left first."""
        return self.status == CLIENT_GONE


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
