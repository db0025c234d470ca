"""Deployed release: the release flow as a deployment of a Prefect server, and one run of it.

`fettle deploy` registers it, with the parameters below in its form; `fettle worker` takes its runs
and starts `fettle execute` for each, in the project's folder and environment: that process is the
flow run, with the stages as its tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import Flow, flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import State
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Failed
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from fettle.errors import FettleError, ParamsError, UserError
from fettle.facts.last_run import LastRun
from flows import release as release_flow
from flows.prefect_recovery import tags_of
from flows.run_lease import RunLease

if TYPE_CHECKING:
    from fettle.adapters.run_identity import RunIdentity
    from fettle.project import Project

COMMAND = "python -P -m fettle.cli.main execute"  # by the worker's PATH, whose python it is
TAG = "fettle"


DeployedFlow = Flow[[list[str] | None, bool], LastRun | State[LastRun]]


@dataclass(frozen=True, slots=True)
class DeploymentSettings:
    """What `fettle deploy` was told; see its options."""

    name: str
    pool: str
    cron: str | None = None
    timezone: str | None = None
    queue: str = "default"
    priority: int | None = None
    limit: int = 1
    tags: Sequence[str] = ()


def flow_of(project: Project | None, on_running: Callable[[], None]) -> DeployedFlow:
    """Return the flow that a deployment registers (`project` None) or a run of it executes."""

    def release(
        overrides: list[str] | None = None, force: bool = False
    ) -> LastRun | State[LastRun]:
        """Make a gated release of this project.

        Args:
            overrides: key=value laid over params.yaml, as `fettle run --set`
            force: run every stage, cached or not

        """
        del overrides  # laid out before the flow began
        if project is None:
            raise UserError("this flow is run by `fettle worker` alone")
        last = release_flow.release.fn(str(project.root), str(project.tree), force)
        if last.release.passed:
            return last
        return Failed(name="GateNotPassed", message="the release is built; its gate did not pass")

    return flow(
        name=release_flow.release.name,
        task_runner=release_flow.release.task_runner,
        on_running=[lambda *_: on_running()],
    )(release)


def deploy(settings: DeploymentSettings) -> UUID:
    """Register the deployment, its work pool and queue; return its id. An earlier one is replaced.

    Raises ParamsError for a schedule that cannot be read, UserError for a pool of another kind.
    """
    schedules = [schedule(settings)] if settings.cron else []
    with get_client(sync_client=True) as client:
        _pool(client, settings)
        registered = flow_of(None, lambda: None)
        return client.create_deployment(
            flow_id=client.create_flow(registered),
            name=settings.name,
            schedules=schedules,
            concurrency_limit=settings.limit,
            parameters={"overrides": [], "force": False},
            description=f"The release flow of the project '{settings.name}'",
            work_pool_name=settings.pool,
            work_queue_name=settings.queue,
            tags=[TAG, *settings.tags],
            parameter_openapi_schema=parameter_schema(registered).model_dump_for_openapi(),
            enforce_parameter_schema=True,
            job_variables={"command": COMMAND},
        )


def schedule(settings: DeploymentSettings) -> DeploymentScheduleCreate:
    """Read a schedule. Raises ParamsError when it is none."""
    try:
        cron = CronSchedule(cron=str(settings.cron), timezone=settings.timezone)
    except ValueError as err:
        raise ParamsError(
            "--cron or --timezone cannot be read",
            got=f"'{settings.cron}', {settings.timezone or 'UTC'}",
            rule="five fields (minute, hour, day, month, weekday), and a name like Europe/Berlin",
            fix="for every night at 3:30 say --cron '30 3 * * *'",
        ) from err
    return DeploymentScheduleCreate(schedule=cron, active=True)


def _pool(client: SyncPrefectClient, settings: DeploymentSettings) -> None:
    try:
        pool = client.read_work_pool(settings.pool)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        wanted = WorkPoolCreate(name=settings.pool, type="process", base_job_template=template)
        pool = client.create_work_pool(wanted)
    if pool.type != "process":
        raise UserError(
            f"the work pool '{settings.pool}' is of another kind",
            got=pool.type,
            rule="a run needs the project's folder, so a worker starts it as a process there",
            fix="name another with --pool; it is made",
        )
    try:
        client.create_work_queue(
            settings.queue, priority=settings.priority, work_pool_name=settings.pool
        )
    except ObjectAlreadyExists:
        if settings.priority is not None:
            queue = client.read_work_queue_by_name(settings.queue, settings.pool)
            client.update_work_queue(queue.id, priority=settings.priority)


@dataclass(frozen=True, slots=True)
class DeployedRun:
    """A flow run of the deployment, in this process."""

    id: UUID
    overrides: tuple[str, ...]
    force: bool
    lease: RunLease


def take(
    flow_run: str, worker: str, identity: RunIdentity, on_lost: Callable[[], None]
) -> DeployedRun:
    """Begin the lease of a flow run, tag it as this process', and read its parameters."""
    lease = RunLease(UUID(flow_run), worker, on_lost)
    lease.begin()
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(UUID(flow_run))
        kept = [tag for tag in found.tags if not tag.startswith("fettle.")]
        client.update_flow_run(found.id, tags=[*kept, *tags_of(identity.tags())])
    given = found.parameters
    return DeployedRun(
        found.id, tuple(given.get("overrides") or ()), bool(given.get("force")), lease
    )


def run(taken: DeployedRun, project: Project, on_running: Callable[[], None]) -> State[LastRun]:
    """Execute the flow run; return its last state."""
    from prefect.flow_engine import run_flow

    release_flow.confirm_with(taken.lease.confirm)
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(taken.id)
    made = flow_of(project, on_running)
    ended = run_flow(
        made,
        flow_run=found,
        parameters={"overrides": list(taken.overrides), "force": taken.force},
        return_type="state",
    )
    assert isinstance(ended, State)  # of a flow that is neither a coroutine nor a generator
    return ended


def fail(taken: DeployedRun, err: FettleError) -> None:
    """Tell Prefect why a run ended before its flow began."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(taken.id, Failed(message=str(err)), force=True)
