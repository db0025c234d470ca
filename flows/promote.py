"""Prefect view of a rollout: its state, gates and timeline as artifacts; decides nothing.

The supervisor goes on whether this runs or not: stop the flow, start it again, or never start it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TypedDict

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.events import emit_event

from fettle.errors import ProjectError
from fettle.rollout.promotion.rollout_state import is_over
from fettle.rollout.supervisor.status_document import GateRow, RolloutStatus

LOOK_S = 2.0


class RolloutMove(TypedDict):
    """One move of a rollout: when, in seconds since its first, to what, and why."""

    after_s: float
    state: str
    weight_percent: float
    reason: str


def _rollout() -> str:
    return Path(runtime.flow_run.parameters["folder"]).name


@flow(name="promote", flow_run_name=_rollout)
def promote(folder: str, follow: bool = True) -> RolloutStatus:
    """Follow the rollout in `folder` (.fettle/canary/rollouts/ID) until it is over.

    Raises ProjectError when there is none.
    """
    place = Path(folder)
    if not (place / "status.json").is_file():
        raise ProjectError(
            "there is no rollout to show",
            got=f"no status.json in {place}",
            fix="begin one: `fettle canary start`",
        )
    progress = create_progress_artifact(progress=0.0, key="canary-weight", description="weight")
    seen = ""
    while True:
        status: RolloutStatus = json.loads((place / "status.json").read_text())
        line = f"{status['state']} at {status['weight_percent']:g} %: {status['reason']}"
        if line != seen:
            if status["state"] != seen.partition(" ")[0]:
                emit_event(
                    f"fettle.rollout.{status['state']}",
                    resource={"prefect.resource.id": f"fettle.rollout.{status['rollout']}"},
                    payload={"reason": status["reason"], "challenger": status["challenger"]},
                )
            seen = line
            get_run_logger().info("rollout %s: %s", status["rollout"], line)
            _show(status, timeline(place / "journal.jsonl"))
            update_progress_artifact(progress, progress=status["weight_percent"])  # type: ignore[arg-type]  # it returns the id here
        if is_over(status["state"]) or not follow:
            return status
        time.sleep(LOOK_S)


def timeline(journal: Path) -> list[RolloutMove]:
    """List every move of a rollout: when (seconds since its first), to what, why."""
    moves: list[RolloutMove] = []
    first, before = 0.0, None
    for line in journal.read_text().splitlines()[1:]:
        doc = json.loads(line)
        state, now_s = doc["decision"]["state"], float(doc["event"]["now_s"])
        first = first or now_s
        at = (state["phase"], state["weight_percent"])
        if at != before:
            before = at
            moves.append(
                {
                    "after_s": round(now_s - first, 1),
                    "state": state["phase"],
                    "weight_percent": state["weight_percent"],
                    "reason": doc["decision"]["reason"],
                }
            )
    return moves


def _show(status: RolloutStatus, moves: list[RolloutMove]) -> None:
    challenger, champion = status["challenger"], status["champion"] or "none, the first release"
    text = (
        f"# {status['state']} at {status['weight_percent']:g} %\n\n{status['reason']}\n\n"
        f"challenger `{challenger}`, champion `{champion}`"
    )
    create_markdown_artifact(text, key="canary", description="The rollout")
    create_table_artifact(
        [{**gate, **_counts(gate)} for gate in status["gates"]],
        key="canary-gates",
        description="Every gate with both arms' counts",
    )
    create_table_artifact(
        [dict(move) for move in moves], key="canary-timeline", description="Every move, and why"
    )


def _counts(gate: GateRow) -> dict[str, str]:
    arms = {"champion": gate["champion"], "challenger": gate["challenger"]}
    return {
        arm: "-" if tally is None else f"{tally['events']:g} of {tally['n']}"
        for arm, tally in arms.items()
    }


if __name__ == "__main__":
    promote(sys.argv[1])
