"""MLflow's client as a Protocol: what is asked of it here, as MLflow itself ships no types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol


class MlflowExperiment(Protocol):
    """A folder of runs; `lifecycle_stage` is "deleted" after a click in MLflow's UI."""

    experiment_id: str
    lifecycle_stage: str


class MlflowRunInfo(Protocol):
    """What identifies a run, and where its files are kept."""

    run_id: str
    artifact_uri: str


class MlflowRunData(Protocol):
    """What was logged with a run."""

    tags: Mapping[str, str]


class MlflowRun(Protocol):
    """A run: of the whole line, or of one stage below it."""

    info: MlflowRunInfo
    data: MlflowRunData


class MlflowModelVersion(Protocol):
    """A version in the model registry; `version` counts from 1."""

    version: int | str
    tags: Mapping[str, str]


class MlflowPage(Protocol):
    """Some experiments, and where the next page begins, if there is one."""

    token: str | None

    def __iter__(self) -> Iterator[MlflowExperiment]: ...


class MlflowApi(Protocol):
    """The calls of mlflow.MlflowClient that are made here."""

    def search_experiments(self, *, page_token: str | None) -> MlflowPage: ...
    def get_experiment_by_name(self, name: str) -> MlflowExperiment | None: ...
    def restore_experiment(self, experiment_id: str) -> None: ...
    def create_experiment(self, name: str, artifact_location: str | None) -> str: ...
    def search_runs(
        self, experiment_ids: Sequence[str], filter_string: str, max_results: int = ...
    ) -> Sequence[MlflowRun]: ...
    def create_run(
        self, experiment_id: str, *, run_name: str, tags: Mapping[str, str]
    ) -> MlflowRun: ...
    def set_terminated(self, run_id: str, status: str) -> None: ...
    def set_tag(self, run_id: str, key: str, value: str) -> None: ...
    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[object] = ...,
        params: Sequence[object] = ...,
        tags: Sequence[object] = ...,
    ) -> None: ...
    def log_inputs(self, run_id: str, datasets: Sequence[object]) -> None: ...
    def log_artifact(
        self, run_id: str, local_path: str, artifact_path: str | None = ...
    ) -> None: ...
    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str) -> None: ...
    def get_run(self, run_id: str) -> MlflowRun: ...
    def create_registered_model(self, name: str) -> object: ...
    def search_model_versions(self, filter_string: str) -> Sequence[MlflowModelVersion]: ...
    def create_model_version(
        self, name: str, source: str, *, run_id: str, tags: Mapping[str, str]
    ) -> MlflowModelVersion: ...
    def get_model_version_by_alias(self, name: str, alias: str) -> MlflowModelVersion: ...
    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None: ...
    def delete_registered_model_alias(self, name: str, alias: str) -> None: ...
    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None: ...
