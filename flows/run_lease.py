"""Run lease: a deployed run shows that it lives, every 2 s, in a variable of Prefect's server.

Its value is {token, worker, beat}. Who watches needs no clock of the other machine: a lease whose
value stayed the same for LEASE_S by the watch of the observer is a dead run's. It is deleted first,
which fences the run off: one that was only frozen finds its token gone, when it wakes and before it
publishes, and ends without a word to Prefect. Then its flow run is marked as crashed, which frees
its slot.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError

from fettle.errors import TransientError
from flows.prefect_recovery import crash

BEAT_S = 2.0
LEASE_S = 10.0
# A run that was taken and has no lease yet: its process imports what it needs, 5 s on an idle core.
UNLEASED_S = 60.0
PREFIX = "fettle_lease_"
OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
LOST = (httpx.HTTPError, PrefectHTTPStatusError)  # the server, or what it answers


def lease_name(flow_run: UUID) -> str:
    """Return the name of a flow run's variable."""
    return f"{PREFIX}{flow_run.hex}"


class RunLease:
    """The lease of the run in this process; `on_lost` ends the process."""

    def __init__(self, flow_run: UUID, worker: str, on_lost: Callable[[], None]) -> None:
        self._name, self._worker, self._on_lost = lease_name(flow_run), worker, on_lost
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._beats = 0

    def begin(self) -> None:
        """Take the lease, whoever had it, and renew it until `end`."""
        with get_client(sync_client=True) as client:
            try:
                client.create_variable(VariableCreate(name=self._name, value=self._value()))
            except ObjectAlreadyExists:
                client.update_variable(VariableUpdate(name=self._name, value=self._value()))
        threading.Thread(target=self._renew, daemon=True).start()

    def end(self) -> None:
        """Give the lease back; its flow run has its last state by now."""
        self._over.set()
        with suppress(ObjectNotFound, *LOST), get_client(sync_client=True) as client:
            client.delete_variable_by_name(self._name)

    def confirm(self) -> None:
        """End the process unless the lease is still held: asked before what cannot be undone.

        Raises TransientError when the server does not say.
        """
        try:
            with get_client(sync_client=True) as client:
                held = self._held(client)
        except LOST as err:
            raise TransientError(
                "Prefect's server does not say whether this run still counts",
                got=f"{type(err).__name__}: {err}".splitlines()[0],
                rule=f"a run that was silent for {LEASE_S:g} s may have been taken for dead, and "
                "another have begun",
                fix="run again when it answers: no stage repeats",
            ) from err
        if not held:
            self._on_lost()

    def _value(self) -> dict[str, object]:
        self._beats += 1
        return {"token": self._token, "worker": self._worker, "beat": self._beats}

    def _held(self, client: SyncPrefectClient) -> bool:
        found = client.read_variable_by_name(self._name)
        return found is not None and token_of(found.value) == self._token

    def _renew(self) -> None:
        while not self._over.wait(BEAT_S):
            with suppress(*LOST), get_client(sync_client=True) as client:
                while not self._over.wait(BEAT_S):
                    held = self._held(client)
                    with suppress(ObjectNotFound):
                        client.update_variable(VariableUpdate(name=self._name, value=self._value()))
                    if not held and not self._over.is_set():
                        self._on_lost()


def sweep(client: SyncPrefectClient) -> None:
    """Delete the leases of runs that are over: a process may be killed between the two."""
    for variable in client.read_variables():
        if variable.name.startswith(PREFIX):
            try:
                run = client.read_flow_run(UUID(variable.name.removeprefix(PREFIX)))
            except ObjectNotFound:
                run = None
            if run is None or run.state is None or run.state.is_final():
                with suppress(ObjectNotFound):
                    client.delete_variable_by_name(variable.name)


def token_of(value: object) -> object:
    """Return the token in a lease's value, None in anything else."""
    return value.get("token") if isinstance(value, dict) else None


class LeaseWatch:
    """The open runs of a work pool, watched by one worker for all."""

    def __init__(self, pool: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._clock = pool, clock
        self._seen: dict[UUID, tuple[object, float]] = {}
        self.workers: dict[UUID, str] = {}  # who has the runs that have a lease now

    def look(self, client: SyncPrefectClient) -> list[FlowRun]:
        """Mark the runs whose lease ended as crashed; return them.

        After a server that did not answer (which raises), every lease is given its time anew.
        """
        try:
            return self._look(client)
        except LOST:
            self._seen.clear()
            raise

    def _look(self, client: SyncPrefectClient) -> list[FlowRun]:
        still = FlowRunFilterState(type=FlowRunFilterStateType(any_=OPEN))
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=still),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._pool])),
        )
        self._seen = {run.id: self._seen[run.id] for run in runs if run.id in self._seen}
        self.workers = {}
        return [run for run in runs if self._is_dead(client, run.id) and self._end(client, run)]

    def _is_dead(self, client: SyncPrefectClient, flow_run: UUID) -> bool:
        found = client.read_variable_by_name(lease_name(flow_run))
        value = found.value if found else None
        if isinstance(value, dict):
            self.workers[flow_run] = str(value.get("worker"))
        now_s = self._clock()
        before, since_s = self._seen.get(flow_run, (value, now_s))
        if before != value:
            since_s = now_s
        self._seen[flow_run] = (value, since_s)
        return now_s - since_s >= (UNLEASED_S if value is None else LEASE_S)

    def _end(self, client: SyncPrefectClient, run: FlowRun) -> bool:
        with suppress(ObjectNotFound):
            client.delete_variable_by_name(lease_name(run.id))
        crash(client, run.id, f"its process is lost: no sign of life for {LEASE_S:g} s")
        del self._seen[run.id]
        return True
