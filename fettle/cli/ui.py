"""`fettle ui`: start Prefect's and MLflow's UIs on loopback and print where they are."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from fettle.cli.run import JsonOption


def ui(
    stop: Annotated[bool, typer.Option("--stop", help="Stop both instead.")] = False,
    json_: JsonOption = False,
) -> None:
    """Start (or stop) the UIs of Prefect and MLflow; both stay up in the background. Of a team's
    servers it says where they are.

    Example: fettle ui --stop
    """
    from fettle import project as projects
    from fettle.adapters import local_servers

    home = projects.find()
    os.environ.update(projects.environment(home))
    kinds: tuple[local_servers.Kind, ...] = ("prefect", "mlflow")
    if stop:
        stopped = [kind for kind in kinds if local_servers.stop(home, kind)]
        answer = {"stopped": stopped}
        print(json.dumps(answer) if json_ else f"stopped: {', '.join(stopped) or 'none was up'}")
        return
    up = {
        kind: local_servers.running(home, kind) or local_servers.launch(home, kind)
        for kind in kinds
    }
    urls = {kind: local_servers.wait(home, server).page for kind, server in up.items()}
    if json_:
        print(json.dumps(urls))
        return
    for kind, url in urls.items():
        shared = local_servers.shared(home, kind)
        print(f"{kind:<8} {url}{f'  ({shared.variable}, by {shared.place})' if shared else ''}")
