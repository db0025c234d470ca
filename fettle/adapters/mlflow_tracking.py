"""MLflow tracking, from one process: parent run, a child run a stage, the model registry.

Stage processes append events to JSONL (fettle/recorder.py); the flow hands the new lines over here
in batches. Two processes must never create MLflow's SQLite file at once (LAB: it is lost for good).
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fettle import manifest
from fettle.adapters import mlflow_aliases, mlflow_client, mlflow_model
from fettle.adapters.run_identity import RunIdentity

DIGEST = "output_digest"
OURS = ("mlflow.source.name", "fettle run")
# An artefact's small files are worth a copy in the tracker; models stay in DVC and the release.
KEPT = (".json", ".html", ".png", ".svg", ".md")
KEPT_MAX_BYTES = 4_000_000
# MLflow's own limits, mlflow/utils/validation.py of 3.17
KEY_MAX = 250
METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100


class Tracker:
    """One pipeline run in MLflow; every method may be called again with the same facts."""

    def __init__(
        self,
        uri: str,
        artifacts: Path,
        experiment: str,
        *,
        registry_uri: str | None = None,
        identity: RunIdentity | None = None,
    ) -> None:
        to = mlflow_client.connect(uri, registry_uri)
        self._raw, self._client, self._error = to.raw, to.guarded, to.refusals
        self._identity = identity.tags() if identity else {}
        try:
            found = self._raw.get_experiment_by_name(experiment)
            if found and found.lifecycle_stage == "deleted":  # by a click in MLflow's UI
                self._raw.restore_experiment(found.experiment_id)
            # a server keeps files where it was told to; a database alone knows no place
            place = None if uri.startswith("http") else artifacts.resolve().as_uri()
            self._experiment = (
                found.experiment_id
                if found
                else self._raw.create_experiment(experiment, artifact_location=place)
            )
        except self._error as err:
            raise to.unopened(err) from err
        self._parent: str | None = None
        self._children: dict[str, str] = {}
        self.stage_runs: dict[str, str] = {}  # by stage: of the run that made its artefact

    @property
    def parent_run(self) -> str:
        """The id of the pipeline's own run."""
        if self._parent is None:
            raise RuntimeError("start() comes first")
        return self._parent

    def start(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Open the parent run with its flat parameters and tags; return its id."""
        run = self._client.create_run(
            self._experiment, run_name=name, tags={**tags, **dict([OURS]), **self._identity}
        )
        self._parent = run.info.run_id
        from mlflow.entities import Param

        flat = [Param(allowed(key), str(value)[:500]) for key, value in flatten(params).items()]
        for some in _batches(flat, PARAMS_A_BATCH):
            self._client.log_batch(self._parent, params=some)
        return self._parent

    def log_data(self, name: str, digest: str, source: str) -> None:
        """Attach the data set (digest, source) to the parent run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=name,
            digest=digest[:36],
            source_type="fettle",
            source=json.dumps({"source": source, "sha256": digest}),
        )
        tag = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(self.parent_run, [DatasetInput(data, [tag])])

    def stage_started(self, stage: str) -> str:
        """Open a child run for a stage; return its id."""
        run = self._client.create_run(
            self._experiment,
            run_name=stage,
            tags={"mlflow.parentRunId": self.parent_run, "stage": stage, **self._identity},
        )
        self._children[stage] = run.info.run_id
        return str(run.info.run_id)

    def events(self, stage: str, events: Sequence[Mapping[str, object]]) -> None:
        """Write a batch of recorder events into the stage's run."""
        from mlflow.entities import Metric, RunTag

        run = self._children.get(stage)
        if run is None:
            return
        metrics, tags = [], []
        for event in events:
            match event:
                case {
                    "kind": "scalar",
                    "name": str(name),
                    "value": float() | int() as value,
                    "time": float() | int() as when_s,
                    "step": int(step),
                }:
                    metrics.append(Metric(allowed(name), value, int(when_s * 1000), step))
                case {"kind": "note", "name": str(name), "text": str(text)}:
                    tags.append(RunTag(allowed(name), text[:4000]))
        self._log(run, metrics, tags)

    def _log(self, run: str, metrics: Sequence[object], tags: Sequence[object] = ()) -> None:
        """Write metrics and tags in batches of the size that MLflow takes."""
        for some in _batches(metrics, METRICS_A_BATCH):
            self._client.log_batch(run, metrics=some)
        for some in _batches(tags, PARAMS_A_BATCH):
            self._client.log_batch(run, tags=some)

    def stage_done(self, stage: str, folder: Path) -> None:
        """Close a stage's run: its measures, its digest, its small files.

        A stage that the user added to dvc.yaml seals nothing: its run has its events alone.
        """
        run = self._children[stage]
        if (folder / manifest.NAME).is_file():
            self._seal(run, manifest.read(folder, verify=False), folder)
        self._client.set_terminated(run, "FINISHED")
        self._link(stage, run)

    def stage_failed(self, stage: str, text: str) -> None:
        """Close a stage's run as failed, with the error's text."""
        run = self._children.get(stage) or self.stage_started(stage)
        self._client.set_tag(run, "error", text[:4000])
        self._client.set_terminated(run, "FAILED")

    def stage_cached(self, stage: str, folder: Path) -> None:
        """Link the run that once made this artefact; rebuild one from its manifest if unknown."""
        if not (folder / manifest.NAME).is_file():  # a stage that the user added to dvc.yaml
            return
        sealed = manifest.read(folder, verify=False)
        found = self._client.search_runs(
            [self._experiment],
            f"tags.{DIGEST} = '{sealed.digest}' and tags.stage = '{stage}'"
            " and attributes.status = 'FINISHED'",
            max_results=1,
        )
        if found:
            self._link(stage, found[0].info.run_id)
            return
        run = self.stage_started(stage)
        self._client.set_tag(run, "restored", "true")
        self._seal(run, sealed, folder)
        self._client.set_terminated(run, "FINISHED")
        self._link(stage, run)

    def known(self, stage: str, folder: Path) -> bool:
        """Tell whether a run of this stage with this very artefact is recorded."""
        digest = manifest.read(folder, verify=False).digest
        return bool(
            self._client.search_runs(
                [self._experiment],
                f"tags.{DIGEST} = '{digest}' and tags.stage = '{stage}'",
                max_results=1,
            )
        )

    def _seal(
        self, run: str, sealed: manifest.Manifest[manifest.UnreadFacts], folder: Path
    ) -> None:
        from mlflow.entities import Metric, RunTag

        now = 0
        metrics = [Metric(allowed(name), m.value, now, 0) for name, m in sealed.measures.items()]
        self._log(run, metrics, [RunTag(DIGEST, sealed.digest)])
        for file in sealed.files:
            if file.path.endswith(KEPT) and file.bytes <= KEPT_MAX_BYTES and "/" not in file.path:
                self._client.log_artifact(run, str(folder / file.path))
        self._client.log_artifact(run, str(folder / manifest.NAME))

    def _link(self, stage: str, run: str) -> None:
        self.stage_runs[stage] = run
        self._client.set_tag(self.parent_run, allowed(f"stage.{stage}"), run)

    def log_files(self, files: Iterable[Path], folder: str) -> None:
        """Copy files (report, figures) beside the parent run."""
        for path in files:
            self._client.log_artifact(self.parent_run, str(path), folder)

    def metrics(self, measures: Mapping[str, float]) -> None:
        """Write the run's headline numbers on the parent, where the UI lists them."""
        from mlflow.entities import Metric

        self._log(self.parent_run, [Metric(allowed(k), v, 0, 0) for k, v in measures.items()])

    def finish(self, status: str = "FINISHED") -> None:
        """Close the parent run."""
        self._client.set_terminated(self.parent_run, status)

    def register(
        self, name: str, release: Path, tags: Mapping[str, str], *, challenger: bool
    ) -> str:
        """Register the release once (by its digest), as a model; return the model version.

        With `challenger` the alias of that name moves to it: a gate that did not pass registers
        the version without it.
        """
        try:
            self._raw.create_registered_model(name)
        except self._error as err:
            if getattr(err, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                raise
        digest = tags["release_digest"]
        versions = self._client.search_model_versions(f"name = '{name}'")
        same = [v for v in versions if v.tags.get("release_digest") == digest]
        if same:
            version = str(same[0].version)
        else:
            made = self._client.create_model_version(
                name, self._log_model(release), run_id=self.parent_run, tags=dict(tags)
            )
            version = str(made.version)
        if challenger:
            mlflow_aliases.move(self._client, name, mlflow_aliases.CHALLENGER, version)
        return version

    def _log_model(self, release: Path) -> str:
        """Keep a release as an MLflow model among the run's files; return where that lies."""
        with tempfile.TemporaryDirectory(prefix="fettle-model-") as made:
            folder = Path(made) / "model"
            mlflow_model.save(release, folder)
            self._client.log_artifacts(self.parent_run, str(folder), "model")
        return f"{self._client.get_run(self.parent_run).info.artifact_uri}/model"


def allowed(name: str) -> str:
    """Write a name of a metric, parameter or tag as MLflow takes it, each name another one.

    "stage.export@x" → "stage.export:x", "compress.recipe[0]" → "compress.recipe.0". MLflow takes
    letters of any script, digits and _ - . space : /, 250 at most, and no name that a path would
    shorten ("w/", "a//b"). A name that has to be changed for it ends in a digest of itself, so that
    two labels never share a series, and one label has the same name in every run.
    """
    given = name
    if name.startswith("stage."):
        name = name.replace("@", ":")
    name = re.sub(r"^compress\.recipe\[(\d+)\]", r"compress.recipe.\1", name)
    written = re.sub(r"[^\w\-. :/]", "_", name)
    if posixpath.normpath(written) != written or written.startswith((".", "/")):
        written = re.sub(r"^\.+", "_", written.replace("/", "_")) or "_"
    if written == name and len(name) <= KEY_MAX:
        return name
    digest = hashlib.sha256(given.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{written[: KEY_MAX - 9]}-{digest}"


def _batches(entries: Sequence[object], most: int) -> list[Sequence[object]]:
    return [entries[at : at + most] for at in range(0, len(entries), most)]


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """Flatten a params tree to {"a.b.0.c": value}."""
    if isinstance(tree, Mapping) and tree:
        items: Iterable[tuple[object, object]] = tree.items()
    elif isinstance(tree, list | tuple) and tree:
        items = enumerate(tree)
    else:
        return {prefix: tree}
    out: dict[str, object] = {}
    for key, value in items:
        out |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return out
