"""`fettle canary plan|lint|replay|rehearse`: what changes nothing that serves."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fettle.project import Project
    from fettle.rollout.promotion.sample_size import Forecast
    from fettle.rollout.promotion.traffic_statistics import TrafficStatistics

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RATE = Annotated[
    float | None,
    typer.Option("--per-s", min=0.001, help="Requests a second; from the router's log, else 10."),
]
ERRORS = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="The champion's share of errors; from the log, else 0.01."),
]
PER_S, SHARE = 10.0, 0.01  # of requests a second, and of errors, where nobody and no log says more


def plan(per_s: RATE = None, errors: ERRORS = None, json_: JsonOption = False) -> None:
    """Say what a rollout needs at this traffic: requests a gate, time, what is at stake.

    Example: fettle canary plan --per-s 50
    """
    from fettle.cli import canary_view

    found, learnt = forecast(per_s, errors)
    text = json.dumps({**asdict(found), "traffic": asdict(learnt)})
    print(text if json_ else canary_view.forecast(json.loads(text)))


def forecast(per_s: float | None, errors: float | None) -> tuple[Forecast, TrafficStatistics]:
    """Work the plan of params.yaml out for the log's traffic; what is given goes before it."""
    from fettle import params as params_file
    from fettle import project as projects
    from fettle.rollout.promotion import sample_size
    from fettle.rollout.promotion.rollout_plan import RolloutPlan
    from fettle.rollout.supervisor import supervisor_launch, traffic_baseline

    home = projects.find()
    section = params_file.load(home.root / "params.yaml").promote
    assumed = sample_size.Traffic(
        requests_per_s=per_s or PER_S, errors=SHARE, images=_images(home, section.shadow_requests)
    )
    learnt = traffic_baseline.from_access_log(supervisor_launch.layout_of(home), assumed)
    traffic, assumes = learnt.traffic, set(learnt.assumed)
    if per_s is not None:
        traffic, assumes = replace(traffic, requests_per_s=per_s), assumes - {"requests_per_s"}
    if errors is not None:
        traffic, assumes = replace(traffic, errors=errors), assumes - {"errors"}
    left = tuple(name for name in learnt.assumed if name in assumes)
    learnt = replace(learnt, traffic=traffic, assumed=left)
    return sample_size.forecast(RolloutPlan.of(section), learnt.traffic), learnt


def _images(home: Project, shadow_requests: int) -> int | None:
    """Count the images that the shadow of the last release would ask; None without a release."""
    from pathlib import Path

    from fettle import project as projects
    from fettle.errors import FettleError
    from fettle.rollout.supervisor import rollout_observer, shadow_traffic, supervisor_launch

    try:
        last = supervisor_launch.last_release(home)
        most = rollout_observer.SHADOW_TIMES * shadow_requests
        return shadow_traffic.images(projects.trees(home), Path(last.folder), most)
    except FettleError:
        return None


def lint(per_s: RATE = None, errors: ERRORS = None, json_: JsonOption = False) -> None:
    """Check the plan of params.yaml: exit 2 when it can never promote, or is no plan.

    Example: fettle canary lint --per-s 50
    """
    from fettle.errors import ParamsError

    found, _ = forecast(per_s, errors)
    if json_:
        print(json.dumps({"refusals": found.refusals, "advice": found.advice}))
    if found.refusals:
        raise ParamsError(
            "the plan cannot promote an equal challenger",
            got="; ".join(found.refusals),
            rule="every gate must be able to pass within its step's budget",
            fix="; ".join(found.advice) or "params.yaml: promote",
        )
    if not json_:
        print("the plan can promote an equal challenger")


def replay(
    rollout: Annotated[str | None, typer.Argument(help="Its id; the last if left out.")] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="File of anchors; that of FETTLE_JOURNAL_ANCHOR.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Derive every decision of a rollout again from its journal, bit for bit; hold its anchors.

    Example: fettle canary replay
    """
    from fettle import project as projects
    from fettle.errors import ProjectError
    from fettle.rollout.promotion import decision_journal
    from fettle.rollout.supervisor import journal_anchor, supervisor_launch

    place = supervisor_launch.layout_of(projects.find())
    known = place.rollouts()
    if not known or (rollout is not None and rollout not in known):
        raise ProjectError(
            f"there is no rollout {rollout or 'to replay'}",
            got=", ".join(known[-5:]) or "none yet",
            fix="begin one: `fettle canary start`",
        )
    chosen = rollout or known[-1]
    journal = place.rollout(chosen) / "journal.jsonl"
    engine, decisions = decision_journal.replay(journal)
    named = anchors or _anchor_file()
    held = journal_anchor.verify(journal, chosen, named) if named else None
    given = decision_journal.orders(journal)
    moves = [
        {"state": decision.state.phase.value, "reason": decision.reason}
        for index, decision in enumerate(decisions)
        if index == 0 or decision.state.phase is not decisions[index - 1].state.phase
    ]
    doc = {"rollout": chosen, "decisions": len(decisions), "moves": moves}
    doc |= {"orders": given, "anchors": held}
    if json_:
        print(json.dumps(doc))
        return
    print(f"{chosen}: {len(decisions)} decisions derived again, all the same")
    for move in moves:
        print(f"  {move['state']:<12} {move['reason']}")
    print(f"  now {engine.state.phase.value}")
    for one in given:
        why = f": {one['why']}" if one["why"] else ""
        print(f"  ordered: {one['order']} by {one['who'] or 'somebody'}{why}")
    if held is None:
        print("  not anchored: who may write its folder may seal another (FETTLE_JOURNAL_ANCHOR)")
    else:
        print(f"  as it was anchored outside, {held} times")


def _anchor_file() -> Path | None:
    from fettle.rollout.supervisor import journal_anchor

    given = os.environ.get(journal_anchor.VARIABLE, "")
    return Path(given) if given.startswith("/") else None


def rehearse(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="good, slow, wrong, failing or dead; all if left out."),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option("--release", help="Digest, tag or folder; the last one if left out."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Play whole rollouts on local traffic from the test split, with good and broken challengers.

    Example: fettle canary rehearse --only good --only dead
    """
    from fettle import project as projects
    from fettle.cli import canary_view
    from fettle.errors import GoalNotMet, UserError
    from fettle.rollout.supervisor import rehearsal as stage
    from fettle.rollout.supervisor import supervisor_launch

    strange = sorted(set(only or ()) - set(stage.RehearsalCase))
    if strange:
        raise UserError(
            f"there is no case {strange[0]!r} to rehearse",
            rule=f"one of {', '.join(stage.RehearsalCase)}",
        )
    home = projects.find()
    os.environ.update(projects.environment(home))
    chosen = (
        supervisor_launch.pin(home, release) if release else supervisor_launch.last_release(home)
    )
    outcomes = [
        stage.rehearse(
            home, chosen, case, say=lambda line: print(line, file=sys.stderr, flush=True)
        )
        for case in stage.RehearsalCase
        if not only or case.value in only
    ]
    docs = [outcome.to_dict() for outcome in outcomes]
    print(json.dumps(docs) if json_ else canary_view.rehearsal(docs))
    if bad := [outcome.case.value for outcome in outcomes if not outcome.as_wanted]:
        raise GoalNotMet(
            f"the rehearsal of {', '.join(bad)} did not end as it must",
            rule="a good challenger is promoted, a broken one rolled back, and no user request "
            "fails",
            fix=f"read {home.state / 'rehearsal'}",
        )
