"""Crash recovery, Prefect's part: a killed process leaves its flow run "Running" for ever.

The server may be a team's: only a run whose tags name this project, this machine and a process
that is gone is ended (fettle/adapters/run_identity.py). Handed to
fettle/adapters/crash_recovery.py, which has the table of what dies and what is mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

from fettle.adapters.run_identity import RunIdentity

OPEN = [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED]
WHY = "the process of this run was killed; found by the next run of the project"


def tags_of(tags: Mapping[str, str]) -> list[str]:
    """Write tags as Prefect keeps them: texts without a value."""
    return [f"{key}={value}" for key, value in tags.items()]


def mark_crashed(flow_name: str, owner: RunIdentity) -> int:
    """Mark the flow's open runs that `owner` may end as crashed, their tasks too; return how
    many.
    """
    flow_filter = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    still = FlowRunFilterState(type=FlowRunFilterStateType(any_=OPEN))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=flow_filter,
            flow_run_filter=FlowRunFilter(
                state=still, tags=FlowRunFilterTags(all_=tags_of(owner.owned()))
            ),
        )
        dead = [
            run.id
            for run in found
            if owner.left_behind(dict(tag.partition("=")[::2] for tag in run.tags))
        ]
        for run in dead:
            crash(client, run, WHY)
    return len(dead)


def crash(client: SyncPrefectClient, run: UUID, why: str) -> None:
    """Mark a flow run and its open tasks as crashed."""
    still = TaskRunFilterState(type=TaskRunFilterStateType(any_=OPEN))
    for task in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
        task_run_filter=TaskRunFilter(state=still),
    ):
        client.set_task_run_state(task.id, Crashed(message=why), force=True)
    client.set_flow_run_state(run, Crashed(message=why), force=True)
