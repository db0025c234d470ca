"""`fettle deploy`: register the release flow with a Prefect server, on a schedule if asked."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from fettle.cli.run import JsonOption


def deploy(
    cron: Annotated[
        str | None, typer.Option(help="Run at these times: minute hour day month weekday.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Whose time that is, like Europe/Berlin; else UTC.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="The work pool; made if there is none.")] = None,
    queue: Annotated[str, typer.Option(help="The pool's queue; made if there is none.")] = (
        "default"
    ),
    priority: Annotated[
        int | None, typer.Option(min=1, help="The queue's priority; 1 goes first.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many runs at once.")] = 1,
    tag: Annotated[list[str] | None, typer.Option(help="A tag of its runs; may be repeated.")] = (
        None
    ),
    *,
    json_: JsonOption = False,
) -> None:
    """Register this project's release flow as a Prefect deployment; `fettle worker` runs it.

    Example: fettle deploy --cron '30 3 * * *'
    """
    from fettle import import_isolation
    from fettle import project as projects
    from fettle.cli import prefect_connection
    from fettle.params import load

    home = projects.find()
    os.environ.update(projects.environment(home))
    name = load(home.root / "params.yaml").release.name
    server = prefect_connection.connect(home)
    import_isolation.load("flows")
    from flows.deployed_release import DeploymentSettings, deploy

    settings = DeploymentSettings(
        name=name,
        pool=pool or name,
        cron=cron,
        timezone=timezone,
        queue=queue,
        priority=priority,
        limit=limit,
        tags=tuple(tag or ()),
    )
    made = deploy(settings)
    if json_:
        print(json.dumps({"deployment": str(made), "name": name, "pool": settings.pool}))
        return
    print(f"deployment release/{name}, work pool '{settings.pool}', at {server.page}")
    print(f"its runs wait for a worker: `fettle worker --pool {settings.pool}` in this folder")
