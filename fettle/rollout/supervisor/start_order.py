"""Start order of a rollout, validated: nothing is begun that could not go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from fettle.errors import BusyError, UserError
from fettle.release import release_store
from fettle.rollout.promotion.rollout_plan import RolloutPlan, section_from_json
from fettle.rollout.promotion.rollout_state import RolloutState, is_over
from fettle.rollout.supervisor import verified_copy
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout


@dataclass(frozen=True, slots=True)
class StartOrder:
    """The releases and the plan; `promote` is the plan's section as JSON."""

    challenger: PinnedRelease
    champion: PinnedRelease | None
    promote: Mapping[str, object]
    plan: RolloutPlan

    @property
    def weights(self) -> tuple[float, ...]:
        """Every weight that the plan will ask for."""
        return (*(step.weight_percent for step in self.plan.steps), 100.0)


def read(order: Mapping[str, object], champion: PinnedRelease | None) -> StartOrder:
    """Read the order; `champion` is what serves now, and goes before the order's.

    Raises UserError when a part of it is none, or the two releases are one.
    """
    try:
        challenger = PinnedRelease.of(order.get("challenger"))
        if champion is None and order.get("champion"):
            champion = PinnedRelease.of(order["champion"])
        promote = order.get("plan")
        plan = RolloutPlan.of(section_from_json(promote))
    except (ValidationError, ValueError) as err:
        raise UserError(
            "the order to start cannot be understood",
            got="; ".join(str(err).splitlines()[:3]),
            rule="it names a release and a plan as this version of fettle writes them",
            fix="mend params.yaml: promote, or `fettle canary stop` and start it in this version",
        ) from err
    if champion is not None and champion.release == challenger.release:
        raise UserError(
            "the challenger is the champion",
            got=challenger.release,
            rule="a rollout compares two releases",
            fix="make another release with `fettle run`, or name one with --release",
        )
    return StartOrder(challenger, champion, promote if isinstance(promote, Mapping) else {}, plan)


def check_free(before: RolloutState | None) -> None:
    """Raise BusyError while a rollout is under way."""
    if before is not None and not is_over(before.phase):
        raise BusyError(
            "a rollout is under way already",
            got=f"{before.rollout_id}, {before.phase.value}",
            rule="one rollout at a time",
            fix="wait for it, or `fettle canary abort`",
        )


def check_forget(rollout: str | None, state: RolloutState | None) -> str:
    """Return the rollout to forget.

    Raises UserError where there is none, BusyError while it is under way.
    """
    if rollout is None:
        raise UserError("there is no rollout to forget", fix="`fettle canary status` says so too")
    if state is not None and not is_over(state.phase):
        raise BusyError(
            "a rollout that is under way is not forgotten",
            got=f"{state.rollout_id}, {state.phase.value}",
            rule="only one that is over, or that cannot be read",
            fix="wait for it, or `fettle canary abort`",
        )
    return rollout


def verify(challenger: PinnedRelease) -> None:
    """Refuse a challenger whose folder or Bento is not what was signed.

    Raises TamperedError, or ProjectError when one of them is gone.
    """
    folder = Path(challenger.folder)
    if not folder.is_dir():
        raise UserError(
            f"the release {challenger.release} is gone",
            got=f"no folder {folder}",
            fix="run `fettle run`, which makes one, or name another with --release",
        )
    release_store.verify_named(folder)
    verified_copy.verify(challenger)


def unanswered(challenger: PinnedRelease, why: str, place: StateLayout) -> UserError:
    """Return the error for a challenger that was started and answers nothing."""
    return UserError(
        f"the challenger {challenger.release} does not answer",
        got=why,
        rule="it must answer an inference before a rollout begins",
        fix=f"read {place.arms / challenger.release / 'server.log'}",
    )


def begun(order: StartOrder, serving: ServingState, rollout_id: str) -> ServingState:
    """Return what serving.json says once the rollout has begun."""
    return replace(
        serving,
        champion=order.champion,
        challenger=order.challenger,
        rollout=rollout_id,
        lease_s=order.plan.lease_s,
        state=None,
    )
