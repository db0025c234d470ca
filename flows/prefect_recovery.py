"""Tell Prefect of the runs that died without a word: a killed process leaves them "Running".

The project's lock is held by the one run that lives, so any other open run of this flow is dead.
MLflow's side is `Tracker.close_dead`.
"""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

OPEN = [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED]
WHY = "the process of this run was killed; found by the next run of the project"


def crash(flow_name: str, *, but: UUID | None) -> int:
    """Mark every open run of the flow but this one as crashed, tasks too; return how many."""
    flow_filter = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    still = FlowRunFilterState(type=FlowRunFilterStateType(any_=OPEN))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=flow_filter, flow_run_filter=FlowRunFilter(state=still)
        )
        dead = [run.id for run in found if run.id != but]
        for run in dead:
            _crash_tasks(client, run)
            client.set_flow_run_state(run, Crashed(message=WHY), force=True)
    return len(dead)


def _crash_tasks(client: SyncPrefectClient, run: UUID) -> None:
    still = TaskRunFilterState(type=TaskRunFilterStateType(any_=OPEN))
    for task in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
        task_run_filter=TaskRunFilter(state=still),
    ):
        client.set_task_run_state(task.id, Crashed(message=WHY), force=True)
