"""`fettle worker`: run the deployment's runs in this project's folder; `fettle execute` is one."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.errors import BusyError, FettleError

if TYPE_CHECKING:
    from fettle.project import Project
    from flows.deployed_release import DeployedRun

WEBHOOK = "FETTLE_ON_FAILURE_WEBHOOK"  # its address may hold a token: no option, which `ps` shows
WAIT_S = 3600.0  # for a run that holds the project
LOOK_S = 1.0
FENCED = 75  # EX_TEMPFAIL of sysexits.h


def worker(
    pool: Annotated[str | None, typer.Option(help="The work pool; the project's own.")] = None,
    queue: Annotated[
        list[str] | None, typer.Option(help="Take runs of this queue alone; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many runs at once.")] = 1,
    on_failure: Annotated[
        str | None, typer.Option(help="A command that is told, in JSON, of a run that failed.")
    ] = None,
) -> None:
    """Work for a Prefect server: run this project's deployment until Ctrl-C.

    FETTLE_ON_FAILURE_WEBHOOK is the address that is told of a failed run.

    Example: fettle worker --on-failure 'mail -s failed ops'
    """
    from fettle import import_isolation
    from fettle import project as projects
    from fettle.cli import prefect_connection
    from fettle.params import load

    home = projects.find()
    os.environ.update(projects.environment(home))
    name = pool or load(home.root / "params.yaml").release.name
    server = prefect_connection.connect(home)
    import_isolation.load("flows")
    from flows.deployment_worker import DeploymentWorker, WorkerSettings

    settings = WorkerSettings(
        name=f"{socket.gethostname()}-{os.getpid()}",
        pool=name,
        queues=tuple(queue or ()),
        limit=limit,
        on_failure=on_failure,
        webhook=os.environ.get(WEBHOOK),
    )
    environ = {key: value for key, value in os.environ.items() if key != WEBHOOK}
    _say(f"worker {settings.name} takes the runs of pool '{name}' at {server.page}")
    DeploymentWorker(settings, environ, _say).work()


def execute() -> None:
    """Execute the flow run that a worker took: its process, in the project's folder."""
    from fettle import import_isolation
    from fettle import project as projects
    from fettle.adapters import run_identity
    from fettle.cli import prefect_connection
    from fettle.process_lifetime import die_with_parent

    die_with_parent()
    root = Path(os.environ["FETTLE_ROOT"])
    os.chdir(root)
    home = projects.find(root)
    os.environ.update(projects.environment(home))
    prefect_connection.quiet_logs()
    import_isolation.load("flows")
    from flows import deployed_release

    me = run_identity.of_this_process(home)
    taken = deployed_release.take(
        os.environ["PREFECT__FLOW_RUN_ID"], os.environ.get("FETTLE_WORKER", ""), me, _fenced
    )
    try:
        with _patient_hold(home):
            _release(home, taken)
    except FettleError as err:
        deployed_release.fail(taken, err)
        raise
    finally:
        taken.lease.end()


def _release(home: Project, taken: DeployedRun) -> None:
    from fettle.adapters import dvc_graph, preflight, run_identity, shared_servers
    from fettle.cli import run
    from flows import deployed_release, release
    from flows.prefect_recovery import mark_crashed

    shared_servers.refuse(home, os.environ)
    preflight.refuse(home, os.environ)
    place, _ = run.lay_out(home, None, taken.overrides)
    dvc_graph.warm_parent()
    run.listen()
    me = run_identity.of_this_process(home)
    run.recover(place, lambda: mark_crashed(release.release.name, me))
    ended = deployed_release.run(taken, place, run.catch)
    _say(f"ended as {ended.name}{f': {ended.message}' if ended.message else ''}")
    if not ended.is_completed():
        raise typer.Exit(1)


@contextmanager
def _patient_hold(home: Project) -> Iterator[None]:
    """Hold the project; wait for a run that holds it now. Raises BusyError after WAIT_S."""
    from fettle import project as projects

    deadline = time.monotonic() + WAIT_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(projects.hold(home, "a run of the deployment"))
                break
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_S)
        yield


def _fenced() -> None:
    """End a run that was taken for dead: nothing more of it may be told or published."""
    from fettle.adapters import dvc_graph

    dvc_graph.kill_all()
    _say("this run was taken for dead, and another may have begun: it ends here, unpublished")
    os._exit(FENCED)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
