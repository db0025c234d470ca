"""Unreadable rollout: its journal is damaged, or another version's; shown and put away.

Nobody judges it, so its challenger meets no user; what served before it serves on.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from fettle import manifest
from fettle.errors import UserError
from fettle.rollout.promotion import decision_journal
from fettle.rollout.promotion.rollout_state import BROKEN, Phase, RolloutState, Verb
from fettle.rollout.supervisor.rollout_status import RolloutStatus
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout


def status(serving: ServingState, why: str) -> RolloutStatus:
    """Return what status.json says of it."""
    return {
        "rollout": serving.rollout,
        "state": BROKEN,
        "weight_percent": 0.0,
        "champion": serving.champion.release if serving.champion else None,
        "challenger": serving.challenger.release if serving.challenger else None,
        "reason": f"{why}; put it away: fettle canary abort",
        "requests": 0,
        "gates": [],
        "eta_s": None,
        "time_s": time.time(),
    }


def write_status(folder: Path, serving: ServingState, why: str) -> None:
    """Write its status.json for who watches; a folder that is gone, or a full disk, stays so."""
    with suppress(OSError):
        if folder.is_dir():
            manifest.write_json(folder / "status.json", status(serving, why))


def roles(
    serving: ServingState, verb: Verb, why: str
) -> tuple[PinnedRelease | None, PinnedRelease | None]:
    """Say which release serves once the rollout is put away, and which one ends.

    Raises UserError for an order other than abort, and undo after a promotion.
    """
    old, new = serving.champion, serving.challenger
    undo = verb is Verb.UNDO and serving.promoted and old is not None
    if verb is not Verb.ABORT and not undo:
        raise UserError(
            f"the rollout {serving.rollout} is not watched, so it cannot {verb.value}",
            got=why,
            fix="put it away: `fettle canary abort`, or begin another: `fettle canary start`",
        )
    return (new, old) if serving.promoted and not undo else (old, new)


def substitute_state(place: StateLayout, serving: ServingState) -> RolloutState | None:
    """Return a state that keeps a first release up that served already: there is no other.

    None where there is another, or it had not come so far.
    """
    if serving.champion is not None or serving.challenger is None or serving.rollout is None:
        return None
    was = decision_journal.last_state(place.rollout(serving.rollout) / "journal.jsonl")
    if was not in (Phase.BAKE, Phase.PROMOTED, Phase.PAUSED):
        return None
    return RolloutState(
        rollout_id=serving.rollout,
        challenger=serving.challenger.release,
        champion=None,
        phase=Phase.PAUSED,
    )
