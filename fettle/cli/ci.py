"""`fettle ci`: files that run the pipeline on a push, and a bare repository's own queue of runs."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.run import JsonOption

if TYPE_CHECKING:
    from fettle.adapters.push_queue import PushedRun

app = typer.Typer(
    help="Run the pipeline on a push: CI files, and a hook for a bare repository.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Bare = Annotated[Path, typer.Argument(help="The bare repository's folder.")]


@app.command()
def init(
    wheel: Annotated[
        Path | None,
        typer.Option(help="fettle's wheel: kept in ci/, installed by its digest."),
    ] = None,
    hook: Annotated[
        Path | None, typer.Option(help="A bare repository, whose pushes this machine runs.")
    ] = None,
    main: Annotated[str, typer.Option(help="The branch that goes before all others.")] = "main",
    supersede: Annotated[
        bool,
        typer.Option("--supersede", help="A later push to a branch stops its earlier run."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over files of others.")] = False,
) -> None:
    """Write GitHub's and GitLab's CI file (--wheel), a bare repository's hook (--hook), or both.

    Example: fettle ci init --hook /srv/git/fruit.git
    """
    from fettle import project as projects
    from fettle.cli import ci_files
    from fettle.errors import UserError
    from fettle.params import load

    home = projects.find()
    if wheel is None and hook is None:
        raise UserError(
            "nothing to write",
            got="neither --wheel nor --hook",
            rule="a service's CI installs fettle from a wheel that the project names by its "
            "digest; a hook runs the fettle of this machine",
            fix="give --wheel FILE for GitHub and GitLab, --hook BARE for a repository here",
        )
    params = load(home.root / "params.yaml")
    ci_files.tracked_data(home, params)
    if hook is not None:
        written = ci_files.write_hook(
            home, hook, main=main, on_push="supersede" if supersede else "queue", force=force
        )
        print(f"wrote {written}: a push is run here; see `fettle ci status {hook}`")
    if wheel is not None:
        for path in ci_files.write_ci(home, params, wheel, force=force):
            print(f"wrote {os.path.relpath(path)}")
        print("commit them; the steps are ci/install.sh and ci/run.sh, also by hand")


@app.command()
def status(bare: Bare, json_: JsonOption = False) -> None:
    """Show what was pushed to a bare repository and what became of it."""
    from fettle.adapters.push_queue import PushQueue

    queue = PushQueue(bare)
    queue.settings()
    runs = queue.runs()
    if json_:
        print(json.dumps([run.to_json() for run in runs], indent=1))
        return
    for run in runs:
        print(_line(run))
    if not runs:
        print("nothing was pushed yet")
    elif any(run.finished_s for run in runs):
        print(f"comments and reports: {queue.home / 'comments'}, {queue.home / 'reports'}")


def _line(run: PushedRun) -> str:
    branch = run.ref.removeprefix("refs/heads/")
    ended = run.finished_s or time.time()
    took = f"{ended - run.started_s:.0f} s" if run.started_s else ""
    return (
        f"  {run.commit[:12]}  {branch:<16} {run.state:<10} {took:>6}  {run.release or ''}".rstrip()
    )


@app.command(hidden=True)
def receive(bare: Bare) -> None:
    """Take git's lines from standard input into the queue; called by the hook."""
    from fettle.adapters.push_queue import PushQueue

    queue = PushQueue(bare)
    if queue.receive(sys.stdin):
        queue.wake()


@app.command(hidden=True)
def work(bare: Bare) -> None:
    """Run the queue until it is empty; started by the hook."""
    from fettle.adapters.push_queue import PushQueue

    PushQueue(bare).work()
