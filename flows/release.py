"""Release flow: the graph of dvc.yaml as one Prefect flow, then publication (flows/publish.py).

A task a stage, in dvc.yaml's order; stages of a matrix side by side. Only transient faults are
retried. DVC decides what is stale and runs the stage; MLflow gets its events while it runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

import httpx
from prefect import flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from fettle import manifest
from fettle import params as params_file
from fettle.adapters import dvc_graph, git_sources, run_identity
from fettle.adapters.mlflow_tracking import Tracker
from fettle.adapters.run_identity import RunIdentity
from fettle.errors import FettleError, OurFault, TransientError, from_record
from fettle.facts.last_run import LastRun, StageTime
from fettle.project import Project
from flows.prefect_recovery import tags_of
from flows.publish import publish
from flows.stage_events import SAY, StageEvents

STAGE_TIMEOUT_S = 4 * 3600.0
RETRIES = 2
TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class StageRun:
    """How one stage went; `outcome` is ran, restored (from the run-cache) or unchanged."""

    name: str
    outcome: dvc_graph.Outcome
    seconds: float


@dataclass
class ReleaseRun:
    """What the tasks of one pipeline run share.

    All that is told to MLflow goes through one thread: its SQLite file has one writer, and a stage
    does not wait for it. `settle` waits for the rest and raises what went wrong.
    """

    project: Project
    force: bool
    stages: dvc_graph.Graph
    stale: Mapping[str, dvc_graph.Stale]
    tracker: Tracker
    context: ForkServerContext
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))
    told: list[Future[None]] = field(default_factory=list)
    done: dict[str, StageRun] = field(default_factory=dict)
    refusal: TransientError | None = None
    untold: dict[str, None] = field(default_factory=dict)  # the stages, in order

    def tell(self, what: Callable[[], object], stage: str) -> None:
        """Queue one call of the tracker, about a stage."""
        self.told.append(self.writer.submit(self._tell, what, stage))

    def _tell(self, what: Callable[[], object], stage: str) -> None:
        """Call the tracker, unless it did not take something before: then the run is not tracked
        whole anyway, and a server that is gone would be waited for at each call.
        """
        if self.refusal is None:
            try:
                what()
            except TransientError as err:
                self.refusal = err
        if self.refusal is not None:
            self.untold[stage] = None

    def times(self) -> list[StageTime]:
        """Return the stages in order: what each took, and whether the cache had it."""
        return [
            StageTime(name=run.name, seconds=run.seconds, cached=run.outcome != "ran")
            for run in (self.done[name] for name in self.stages)
        ]

    def settle(self) -> None:
        """Wait until all that was told is written.

        Raises TransientError when the tracker did not take it all.
        """
        for call in self.told:
            call.result()
        self.told.clear()
        if (err := self.refusal) is not None:
            raise TransientError(
                err.what,
                got=err.got,
                rule=f"{err.rule}; not tracked: {', '.join(self.untold)}. Every stage's artefact "
                "is kept, and nothing is published that no tracker knows",
                fix="run again when it answers: no stage repeats, and their runs are written then",
            ) from err


# One run per process: task arguments are serialised, a tracker and a lock cannot be.
_current: list[ReleaseRun] = []
_confirming: list[Callable[[], None]] = []


def confirm_with(confirm: Callable[[], None]) -> None:
    """Let the run of this process ask `confirm` whether it still counts, before it publishes."""
    _confirming.append(confirm)


def is_transient(_task: object, _task_run: object, state: State[str]) -> bool:
    """Tell Prefect whether a retry makes sense."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


@task(
    task_run_name="{name}",
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def stage(name: str) -> str:
    """Run one stage unless it is unchanged; return how it went."""
    run = _current[-1]
    folder = artifact_folder(run.project.tree, name)
    changed_above = any(run.done[up].outcome != "unchanged" for up in run.stages[name])
    if not (run.force or changed_above or name in run.stale):
        return _finish(run, StageRun(name, "unchanged", 0.0), folder)
    started = time.time()
    tell = partial(run.tell, stage=name)
    watch = StageEvents(run.project.tree, name, tell=tell, tracker=run.tracker)
    tell(partial(run.tracker.stage_started, name))
    code, log = dvc_graph.run_stage(
        run.context,
        run.project.tree,
        name,
        force=run.force,
        timeout_s=STAGE_TIMEOUT_S,
        on_tick=watch.tick,
    )
    watch.end(whole=code == 0)
    text = log.read_text(errors="replace") if log.is_file() else ""
    for line in text.splitlines():
        get_run_logger().info(line)
    if code != 0:
        raise _failure(run, name, code, text)
    ran = _ran_since(run.project.tree / "records" / f"{name}.json", started)
    return _finish(run, StageRun(name, "ran" if ran else "restored", time.time() - started), folder)


def _finish(run: ReleaseRun, result: StageRun, folder: Path) -> str:
    tracker = run.tracker
    run.tell(
        partial(
            tracker.stage_done if result.outcome == "ran" else tracker.stage_cached,
            result.name,
            folder,
        ),
        result.name,
    )
    run.done[result.name] = result
    SAY.info("stage", extra={"stage": result})
    return result.outcome


def _failure(run: ReleaseRun, name: str, code: int, log: str) -> FettleError:
    """Build the error that the stage left, put its last good artefact back, close its run."""
    err = failure(run.project.tree, name, code, log)
    if dvc_graph.restore(run.project.tree, name):
        get_run_logger().info("the last good artefact of %s was put back", name)
    run.tell(partial(run.tracker.stage_failed, name, str(err)), name)
    return err


def failure(tree: Path, name: str, code: int, log: str) -> FettleError:
    """Build the error that a failed stage left, or say how its log ends."""
    record = tree / "records" / f"{name}.error.json"
    if record.is_file():
        doc = json.loads(record.read_text())
        return from_record(doc["kind"], doc["text"])
    tail = "\n".join(log.splitlines()[-TAIL_LINES:])
    return OurFault(
        f"stage {name} ended without saying why",
        got=f"exit code {code}; the end of its log:\n{tail}",
        fix=f"run `fettle run` again; read records/{name}.log",
    )


def _ran_since(record: Path, started: float) -> bool:
    return record.is_file() and json.loads(record.read_text())["started"] >= started


def artifact_folder(tree: Path, stage_name: str) -> Path:
    """Return where a stage of the graph writes: "export@t" → artifacts/export/t."""
    name, _, target = stage_name.partition("@")
    return tree / "artifacts" / name / target


@flow(
    name="release",
    task_runner=ThreadPoolTaskRunner(  # type: ignore[arg-type]  # not what Prefect annotates
        max_workers=os.cpu_count() or 2
    ),
)
def release(root: str, tree: str, force: bool) -> LastRun:
    """Run what is stale, then publish the release; returns what `.fettle/last.json` holds."""
    project = Project(Path(root), Path(tree))
    params = params_file.load(project.tree / "params.yaml")
    stages, stale = dvc_graph.stale(project.tree)
    refuse_tampered(project.tree, stale)
    sources = git_sources.describe(project.tree)
    tracker = Tracker(
        project.tracking_uri,
        project.state / "mlflow-artifacts",
        params.release.name,
        registry_uri=project.registry_uri,
        identity=run_identity.of_this_process(project),
    )
    run = ReleaseRun(project, force, stages, stale, tracker, dvc_graph.warm_parent())
    tracker.start(
        params.release.name,
        params.model_dump(mode="json", by_alias=True),
        {
            "mlflow.source.git.commit": sources["commit"] or "",
            "git_dirty": str(sources["dirty"]).lower(),
            "source_digest": sources["source"],
        },
    )
    _current.append(run)
    try:
        _run_stages(stages)
        run.settle()
        dvc_graph.record_first(project.tree)
        return publish(project, tracker, params, sources, run.times(), confirm=_confirm)
    except BaseException:
        run.writer.submit(tracker.finish, "FAILED")  # also when it refused something before
        raise
    finally:
        run.writer.shutdown()
        _current.pop()


def _confirm() -> None:
    for confirm in _confirming:
        confirm()


def run_release(
    project: Project,
    identity: RunIdentity,
    *,
    name: str,
    force: bool,
    on_running: Callable[[], None],
) -> LastRun:
    """Run the flow on the server of PREFECT_API_URL, tagged as ours; `on_running` is called in it.

    Raises TransientError when that server is lost meanwhile.
    """
    named = release.with_options(flow_run_name=name, on_running=[lambda *_: on_running()])
    try:
        with tags(*tags_of(identity.tags())):
            return named(str(project.root), str(project.tree), force)
    except (httpx.HTTPError, PrefectHTTPStatusError) as err:
        raise TransientError(
            "Prefect's server does not answer any more",
            got=f"{type(err).__name__}: {err}".splitlines()[0],
            rule="the run is told to it; every stage's artefact is kept",
            fix="run again when it answers: no stage repeats",
        ) from err


def refuse_tampered(tree: Path, stale: Mapping[str, dvc_graph.Stale]) -> None:
    """Verify every artefact that DVC finds modified: one edited by hand is refused, not replaced.

    Raises TamperedError naming the file.
    """
    for name, why in stale.items():
        folder = artifact_folder(tree, name)
        if (
            any(r.startswith("outs ") and r.endswith(": modified") for r in why.reasons)
            and (folder / manifest.NAME).is_file()
        ):
            manifest.read(folder)


def _run_stages(stages: dvc_graph.Graph) -> None:
    futures: dict[str, PrefectFuture[str]] = {}
    for name, ups in stages.items():
        above = [futures[up] for up in ups]
        futures[name] = stage.submit(name, wait_for=above, return_state=False)
    failures = []
    for future in futures.values():
        future.wait()
        result = future.state.result(raise_on_failure=False) if future.state.is_failed() else None
        if isinstance(result, FettleError):
            failures.append(result)
        elif isinstance(result, BaseException):
            failures.append(OurFault(f"{type(result).__name__}: {result}"))
    if failures:
        raise failures[0]
    if missing := [name for name, f in futures.items() if not f.state.is_completed()]:
        raise OurFault(f"stages did not run: {', '.join(missing)}")
