"""MLflow client: connected to a database or a server, its refusals turned into our errors."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Protocol, cast

from fettle.adapters.mlflow_protocols import MlflowApi, MlflowExperiment
from fettle.adapters.run_identity import RunIdentity
from fettle.errors import TransientError
from fettle.server_addresses import masked, without_secrets


class _Call(Protocol):
    def __call__(self, *values: object, **named: object) -> object: ...


Refusals = tuple[type[Exception], ...]


class _Guarded:
    """MLflow's client, each of its refusals turned into a TransientError."""

    def __init__(self, raw: MlflowApi, refusals: Refusals, uris: list[str]) -> None:
        self._raw, self._refusals, self._uris = raw, refusals, uris

    def __getattr__(self, name: str) -> _Call:
        asked: _Call = getattr(self._raw, name)

        def ask(*values: object, **named: object) -> object:
            try:
                return asked(*values, **named)
            except self._refusals as err:
                raise TransientError(
                    "MLflow did not take what the run did",
                    got=without_secrets(str(err), self._uris),
                    rule=f"it was asked to {name.replace('_', ' ')}",
                    fix="run again: the finished stages are kept",
                ) from err

        return ask


@dataclass(frozen=True, slots=True)
class MlflowConnection:
    """MLflow's client, as it is and guarded; `refusals` are what the first may raise."""

    raw: MlflowApi
    guarded: MlflowApi
    refusals: Refusals
    uris: list[str]

    def unopened(self, err: Exception) -> TransientError:
        """Return the error of a tracker that cannot even begin."""
        return _unopened(self.uris, err)


def connect(uri: str, registry_uri: str | None = None) -> MlflowConnection:
    """Return MLflow's client of a tracking address, and of a registry that lies elsewhere."""
    uris = [uri, registry_uri or uri]
    with warnings.catch_warnings():
        # MLflow's own imports and models warn under newer pydantic and SQLAlchemy
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for chatty in ("mlflow", "alembic"):  # they tell of their own tables
            logging.getLogger(chatty).setLevel(logging.WARNING)
        # OSError: requests' own, which uploads of files raise; ImportError: a database's driver
        refusals: Refusals = (MlflowException, OSError, ImportError)
        try:
            raw: MlflowApi = MlflowClient(tracking_uri=uris[0], registry_uri=uris[1])
        except refusals as err:
            raise _unopened(uris, err) from err
    guarded = cast(MlflowApi, _Guarded(raw, refusals, uris))  # it hands on every call
    return MlflowConnection(raw, guarded, refusals, uris)


def fault(uri: str) -> str | None:
    """Ask a tracker for an experiment; return what is wrong, None when it answers."""
    try:
        to = connect(uri)
        try:
            to.raw.get_experiment_by_name("Default")
        except to.refusals as err:
            raise to.unopened(err) from err
    except TransientError as err:
        return (err.got or "").splitlines()[0] if err.got else "no reason given"
    return None


def _unopened(uris: list[str], err: Exception) -> TransientError:
    got = without_secrets(str(err), uris)
    shown = " and ".join(masked(uri) for uri in dict.fromkeys(uris))
    if uris[0].startswith("http"):
        return TransientError(
            "MLflow's server does not take this run", got=got, fix=f"see that {shown} answers"
        )
    return TransientError("MLflow's database cannot be opened", got=got, fix=f"see {shown}")


def close_killed_runs(uri: str, owner: RunIdentity) -> int:
    """Mark the runs that a killed `fettle run` left open as killed; return how many.

    The server may be a team's: a run that is not this project's, of this machine, and of a process
    that is gone, is let be. The caller holds the project.
    """
    client = connect(uri).guarded
    ours = " and ".join(f"tags.`{key}` = '{value}'" for key, value in owner.owned().items())
    found = client.search_runs(
        [experiment.experiment_id for experiment in _experiments(client)],
        f"attributes.status = 'RUNNING' and {ours}",
    )
    dead = [run for run in found if owner.left_behind(run.data.tags)]
    for run in dead:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(dead)


def _experiments(client: MlflowApi) -> list[MlflowExperiment]:
    """List every experiment, page by page."""
    page = client.search_experiments(page_token=None)
    found = list(page)
    while page.token:
        page = client.search_experiments(page_token=page.token)
        found += page
    return found
