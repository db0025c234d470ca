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
from multiprocessing.context import ForkServerContext
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from fettle import manifest
from fettle import params as params_file
from fettle.adapters import dvc_graph, git_sources
from fettle.adapters.mlflow_tracking import Tracker
from fettle.errors import FettleError, OurFault, TransientError, from_record
from fettle.facts.last_run import LastRunDict, StageTimeDict
from fettle.project import Project
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
    told: list[Future[object]] = field(default_factory=list)
    done: dict[str, StageRun] = field(default_factory=dict)

    def tell(self, what: Callable[..., object], *words: object) -> None:
        """Queue one call of the tracker."""
        self.told.append(self.writer.submit(what, *words))

    def times(self) -> list[StageTimeDict]:
        """Return the stages in order: what each took, and whether the cache had it."""
        return [
            {"name": run.name, "seconds": run.seconds, "cached": run.outcome != "ran"}
            for run in (self.done[name] for name in self.stages)
        ]

    def settle(self) -> None:
        """Wait until all that was told is written."""
        for call in self.told:
            call.result()
        self.told.clear()


# One run per process: task arguments are serialised, a tracker and a lock cannot be.
_current: list[ReleaseRun] = []


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
    watch = StageEvents(run.project.tree, name, tell=run.tell, tracker=run.tracker)
    run.tell(run.tracker.stage_started, name)
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
        tracker.stage_done if result.outcome == "ran" else tracker.stage_cached,
        result.name,
        folder,
    )
    run.done[result.name] = result
    SAY.info("stage", extra={"stage": result})
    return result.outcome


def _failure(run: ReleaseRun, name: str, code: int, log: str) -> FettleError:
    """Build the error that the stage left, put its last good artefact back, close its run."""
    err = failure(run.project.tree, name, code, log)
    if dvc_graph.restore(run.project.tree, name):
        get_run_logger().info("the last good artefact of %s was put back", name)
    run.tell(run.tracker.stage_failed, name, str(err))
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
def release(root: str, tree: str, force: bool) -> LastRunDict:
    """Run what is stale, then publish the release; returns what `.fettle/last.json` holds."""
    project = Project(Path(root), Path(tree))
    params = params_file.load(project.tree / "params.yaml")
    stages, stale = dvc_graph.stale(project.tree)
    refuse_tampered(project.tree, stale)
    sources = git_sources.describe(project.tree)
    tracker = Tracker(project.tracking_uri, project.state / "mlflow-artifacts", params.release.name)
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
        return publish(project, tracker, params, sources, run.times())
    except BaseException:
        run.tell(tracker.finish, "FAILED")
        raise
    finally:
        run.writer.shutdown()
        _current.pop()


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
