"""`fettle why STAGE`: which file, parameter or output makes a stage run, before it runs."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from fettle.cli.run import JsonOption, ParamsOption, SetOption


def why(
    stage: Annotated[str, typer.Argument(help="A stage, e.g. finetune or export@x86_ort_int8.")],
    params: ParamsOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Say why a stage would run now.

    Example: fettle why compress --set compress.budget.drop_max=0.03
    """
    from fettle import project as projects
    from fettle import workspace
    from fettle.adapters import dvc_graph
    from fettle.errors import UserError
    from fettle.params import load
    from fettle.plugins import suggest

    home = projects.find()
    os.environ.update(projects.environment(home))
    place = workspace.prepare(home, params, list(set_ or []))
    projects.refresh_inputs(place, load(place.tree / "params.yaml"))
    stages, stale = dvc_graph.stale(place.tree)
    if stage not in stages:
        raise UserError(
            f"there is no stage '{stage}'{suggest(stage, list(stages))}",
            rule=f"dvc.yaml has: {', '.join(stages)}",
        )
    above = [name for name in stale if stage in dvc_graph.downstream(stages, {name})]
    reasons = list(stale[stage].reasons) if stage in stale else []
    if json_:
        print(json.dumps({"stage": stage, "reasons": reasons, "stale_above": above}))
        return
    for reason in reasons:
        print(f"{stage} would run: {reason}")
    for name in above:
        print(f"{stage} may run: {name} above it would ({stale[name].reasons[0]})")
    if not reasons and not above:
        print(f"{stage} is unchanged: it would not run")
