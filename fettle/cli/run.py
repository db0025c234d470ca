"""`fettle run`: make the release, or say in two seconds that nothing changed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fettle.adapters.dvc_graph import Graph, Stale
    from fettle.facts.last_run import LastRun
    from fettle.params import Params
    from fettle.project import Project

ParamsOption = Annotated[
    Path | None, typer.Option("--params", help="Another params file; runs in a workspace.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Lay key=value over the params; runs in a workspace."),
]
DataOption = Annotated[
    Path | None, typer.Option(help="Folder or manifest of the data, for image_folder.")
]
ModelOption = Annotated[
    Path | None, typer.Option(help="A trained ONNX file, for the family onnx_file.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", help="Size the run to a time: 25m, 1h30m, 1500s; in a workspace."),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="A smoke run on N images, in a workspace; ships nothing."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def run(
    params: ParamsOption = None,
    set_: SetOption = None,
    data: DataOption = None,
    model: ModelOption = None,
    force: Annotated[bool, typer.Option("--force", help="Run every stage, cached or not.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and stop.")
    ] = False,
    *,
    budget: BudgetOption = None,
    limit: LimitOption = None,
    first: Annotated[
        bool, typer.Option("--first", help="Make a first release: a linear probe, no training.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Run the pipeline of this project, from data to a gated release.

    Example: fettle run --set compress.budget.drop_max=0.03
    """
    from fettle import project as projects
    from fettle.adapters import preflight
    from fettle.cli import first_release, time_budget
    from fettle.errors import GoalNotMet
    from fettle.params import load
    from fettle.release import verdict_ledger

    overrides = [*smoke_overrides(limit), *(set_ or [])]
    overrides += first_release.OVERRIDES if first else ()
    seconds = budget_seconds(budget, first=first)
    home = projects.find()
    os.environ.update(projects.environment(home))
    load(params or home.root / "params.yaml", overrides)  # every error, before any work
    verdict_ledger.read(home.root / verdict_ledger.NAME)
    whole = load(params or home.root / "params.yaml", set_ or [])
    if not dry_run:
        preflight.refuse(home, os.environ)
    with projects.hold(home, " ".join(["fettle", *sys.argv[1:]])):
        place, settings = lay_out(home, params, overrides, data=data, model=model)
        if seconds is not None:
            file = params or home.root / "params.yaml"
            chosen = time_budget.size(seconds, place, settings, file=file, overrides=overrides)
            asked = [*overrides, *chosen]
            place, settings = lay_out(home, params, asked, data=data, model=model)
        if dry_run:
            _plan(place, settings, json_)
            return
        try:
            if force or (last := _up_to_date(place)) is None:
                _run(place, settings, force, json_)
            else:
                _finish(place, last, json_, fresh=False)
        except GoalNotMet:
            if first:
                _say(first_release.outlook(place, whole))
            raise
        if first:
            _say(first_release.outlook(place, whole))


def smoke_overrides(limit: int | None) -> list[str]:
    """Return the overrides of a smoke run: the limit, and no minimum of images a class."""
    return [] if limit is None else [f"ingest.limit={limit}", "validate.class_images_min=1"]


def budget_seconds(budget: str | None, *, first: bool) -> float | None:
    """Parse --budget; raises UserError for no time, or beside --first, which is a size itself."""
    from fettle.errors import UserError
    from fettle.recipes import run_budget

    if budget is None:
        return None
    if first:
        raise UserError(
            "--budget and --first are two sizes of one run",
            rule="--first takes what a linear probe takes; --budget sizes everything to a time",
            fix="give one of them",
        )
    return run_budget.parse(budget)


def _up_to_date(project: Project) -> LastRun | None:
    """Return the last run's record when nothing is stale and its release still stands."""
    from fettle.release import release_store

    last = project.read_last()
    if last is None or stale(project)[1]:
        return None
    folder = project.root / last.release.folder
    if not folder.is_dir():
        return None
    release_store.verify(folder, last.release.digest)
    package = release_store.digest(project.tree / "artifacts" / "package" / "release")
    return last if package == last.release.digest else None


def lay_out(
    home: Project,
    params: Path | None,
    overrides: Sequence[str],
    *,
    data: Path | None = None,
    model: Path | None = None,
) -> tuple[Project, Params]:
    """Prepare where these params run, and tell DVC what the data and the model are now."""
    from fettle import project as projects
    from fettle import workspace
    from fettle.adapters import git_sources
    from fettle.evaluation import licence_check
    from fettle.params import load

    place = workspace.prepare(home, params, overrides)
    if place.tree != home.root:
        for file in git_sources.unreadable(home.root):
            _say(f"left out of the workspace: {file} cannot be read")
    settings = load(place.tree / "params.yaml")
    refuse_service(place, settings)
    projects.remember(place.tree, settings, data=data, model=model)
    projects.refresh_inputs(place, settings)
    licence_check.refuse(place.tree, settings)
    for line in projects.overridden(place.tree, settings):
        _say(line)
    return place, settings


def refuse_service(place: Project, settings: Params) -> None:
    """Raise ParamsError when `release.service` names no folder in bentos/."""
    from fettle.errors import ParamsError
    from fettle.plugins import suggest

    folder = place.tree / "bentos"
    if not (folder / settings.release.service).is_dir():
        there = sorted(p.name for p in folder.glob("*") if p.is_dir() and p.name[0] not in "._")
        name = settings.release.service
        raise ParamsError(
            "release.service: no such service",
            got=f"'{name}'{suggest(name, there)}",
            rule=f"it names a folder in bentos/: {', '.join(there) or 'there is none'}",
            fix=f"set release.service to one of them, or add bentos/{name}",
        )


def stale(project: Project) -> tuple[Graph, dict[str, Stale]]:
    """Ask for the graph and what is stale; mend first what a killed run left, if DVC cannot even
    read it.
    """
    from fettle.adapters import dvc_graph
    from fettle.errors import ProjectError

    try:
        return dvc_graph.stale(project.tree)
    except ProjectError:
        recover(project)
        return dvc_graph.stale(project.tree)


def recover(project: Project, flow_runs: Callable[[], int] | None = None) -> None:
    """Mend what a killed run left, and say so; `flow_runs`: Prefect's part, once it answers."""
    from fettle.adapters import crash_recovery

    for line in crash_recovery.recover(project, flow_runs=flow_runs):
        _say(f"recovered: {line}")


def _plan(project: Project, settings: Params, json_: bool) -> None:
    from fettle.cli import dry_run

    stale(project)
    dry_run.show(project, settings, as_json=json_)


def _run(project: Project, settings: Params, force: bool, json_: bool) -> None:
    from fettle import import_isolation
    from fettle.adapters import dvc_graph, local_servers, run_identity, shared_servers
    from fettle.cli import prefect_connection

    started = time.monotonic()
    for shared in shared_servers.refuse(project, os.environ):
        _say(f"told to {shared.shown} ({shared.variable}, by {shared.place})")
    server = local_servers.running(project, "prefect")
    if server is None:
        _say("starting Prefect's server (it stays up for the next run; `fettle ui --stop` ends it)")
        server = local_servers.launch(project, "prefect")
    dvc_graph.warm_parent()  # it imports DVC while the server starts
    catch()
    prefect_connection.use(project, server)
    listen()
    _say(f"release '{settings.release.name}'")
    import_isolation.load("flows")
    from flows.prefect_recovery import mark_crashed
    from flows.release import release, run_release

    local_servers.wait(project, server)
    me = run_identity.of_this_process(project)
    recover(project, lambda: mark_crashed(release.name, me))
    # Prefect puts a SIGTERM handler of its own in our place, which waits for the running stages
    last = run_release(project, me, name=settings.release.name, force=force, on_running=catch)
    _say(f"done in {time.monotonic() - started:.0f} s")
    _finish(project, last, json_, fresh=True)


def _finish(
    project: Project,
    last: LastRun,
    json_: bool,
    *,
    fresh: bool,
) -> None:
    from fettle.cli import run_summary
    from fettle.errors import GoalNotMet

    if json_:
        print(json.dumps(json.loads((project.tree / "report" / "report.json").read_text())))
    else:
        run_summary.show(project, last, fresh=fresh)
    if smoke := run_summary.smoke(project):
        _say(smoke)
        return
    if not last.release.passed:
        raise GoalNotMet(
            "the release is built but its gate did not pass, so it is no challenger",
            got="; ".join(run_summary.gate_reasons(project)),
            rule="compress.budget, compress.constraints, verdict.limits and verdict.class_drop_max "
            "(params.yaml) are judged once, on test",
            fix="search further (compress.search), add data, or change the budget",
        )


def catch() -> None:
    """Stop the run at Ctrl-C and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)


def _interrupted(number: int, _frame: object) -> None:
    """Kill the running stages and stop: the finished ones are kept."""
    from fettle.adapters import dvc_graph

    dvc_graph.kill_all()
    _say("stopped; the finished stages are kept, `fettle run` goes on from there")
    os._exit(128 + number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _one_line(text: str) -> str:
    """Cut a line at a terminal's width; a log keeps it whole."""
    columns = shutil.get_terminal_size().columns
    return text if not sys.stderr.isatty() or len(text) <= columns else f"{text[: columns - 1]}…"


class _Progress(logging.Handler):
    """Print the flow's events as lines: a stage's end and what it decided; progress at times."""

    EVERY_S = 5.0

    def __init__(self) -> None:
        super().__init__()
        self._last = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if done := getattr(record, "stage", None):
            seconds = f"{done.seconds:7.1f} s" if done.outcome != "unchanged" else " " * 9
            _say(f"  {done.name:<28} {done.outcome:<10} {seconds}")
        elif warning := getattr(record, "warning", None):
            _say(f"  {warning[0]:<28} warning: {warning[1]}")
        elif decision := getattr(record, "decision", None):
            _say(f"  {decision[0]:<28} {decision[1]}")
        elif (progress := getattr(record, "progress", None)) and (
            time.monotonic() - self._last > self.EVERY_S
        ):
            self._last = time.monotonic()
            name, fraction, text = progress
            _say(_one_line(f"  {name:<28} {fraction:>4.0%}  {text}"))


def listen() -> None:
    """Print the flow's events as lines."""
    logger = logging.getLogger("fettle.run")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Progress()]
