"""DVC stage graph: what depends on what, what is stale; runs one stage.

DVC is asked in this process (0.1 s a question); a stage is run by a child forked from a warm
process that has DVC imported already, so that a stage costs no second import and can be killed
alone with all it started.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Literal

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import _can_hash

from fettle import params_migration
from fettle.adapters import dvc_lock
from fettle.adapters.dvc_protocols import DvcRepo, DvcStage, DvcStatus
from fettle.errors import FettleError, ProjectError
from fettle.process_lifetime import die_with_owner
from fettle.staleness import input_history

Graph = dict[str, list[str]]  # stage → the stages it waits for, in topological order
# The stage that DVC always asks. Whoever asks here has refreshed the inputs in its own process, so
# it is no part of the graph that a flow runs, and no reason for a run.
FIRST = "inputs"
# Nothing here compares commits or stages files for one, and opening git costs time.
CONFIG = {"core": {"no_scm": True}}


@dataclass(frozen=True, slots=True)
class Stale:
    """Why a stage would run: DVC's own words, one line each; `restorable` from the run-cache."""

    reasons: tuple[str, ...]
    restorable: bool


@contextmanager
def _open(tree: Path) -> Iterator[DvcRepo]:
    params_migration.refuse_former_graph(tree)
    try:
        with Repo(str(tree), _wait_for_lock=True, config=CONFIG) as repo, repo.lock:
            yield repo
    except DvcException as err:
        raise translate(err) from err


def translate(err: Exception) -> FettleError:
    """Turn DVC's error into ours; its text names the file and the fault."""
    cause = f": {err.__cause__}" if err.__cause__ else ""
    return ProjectError(
        f"DVC refused: {err}{cause}",
        rule="dvc.yaml and dvc.lock must be whole, and every data path must exist",
        fix="mend the file it names (a broken dvc.lock may be deleted: the cache stays)",
    )


def load(tree: Path) -> Graph:
    """Read the stage graph from dvc.yaml, matrix expanded, dependencies first."""
    with _open(tree) as repo:
        return _graph(repo, tree)


def _graph(repo: DvcRepo, tree: Path) -> Graph:
    """Build the graph of the stages of `tree`/dvc.yaml.

    What else the repository holds is the user's own: files of `dvc add`, a dvc.yaml in a folder
    below. Our stages may depend on it; DVC checks that it is there, this line does not run it.
    """
    graph = repo.index.graph
    line = {stage: str(stage.name) for stage in graph if _is_of_line(stage, tree)}
    line = {stage: name for stage, name in line.items() if name != FIRST}
    ordered = reversed(list(nx.lexicographical_topological_sort(graph, key=_address)))
    return {
        line[stage]: sorted(line[up] for up in graph.successors(stage) if up in line)
        for stage in ordered
        if stage in line
    }


def _is_of_line(stage: DvcStage, tree: Path) -> bool:
    """Tell whether a stage is one of `tree`/dvc.yaml; what `dvc add` writes has no name."""
    named = getattr(stage, "name", None) is not None
    return named and Path(stage.path).resolve() == (tree / "dvc.yaml").resolve()


def _address(stage: DvcStage) -> str:
    """Order stages of one rank by name; its `addressing` would change with the current folder."""
    return f"{getattr(stage, 'name', None) or ''} {stage.path}"


def _find(repo: DvcRepo, tree: Path, name: str) -> DvcStage:
    return next(stage for stage in _of_line(repo, tree) if stage.name == name)


def _of_line(repo: DvcRepo, tree: Path) -> list[DvcStage]:
    return [stage for stage in repo.index.stages if _is_of_line(stage, tree)]


def stale(tree: Path, *, look_in_cache: bool = False) -> tuple[Graph, dict[str, Stale]]:
    """Return the graph and every stage whose own deps, params, command or outs changed.

    `look_in_cache` also asks the run-cache whether a stage can be restored, which hashes its deps.
    """
    with _open(tree) as repo:
        graph = _graph(repo, tree)
        found: dict[str, Stale] = {}
        for name in graph:
            stage = _find(repo, tree, name)
            if not stage.frozen and stage.changed():
                known = any(dep.hash_info for dep in stage.deps)
                reasons = tuple(_explained(stage, tree)) if known else ("never run here",)
                found[name] = Stale(reasons, look_in_cache and _restorable(repo, stage))
        return graph, found


def _restorable(repo: DvcRepo, stage: DvcStage) -> bool:
    try:
        stage.save_deps(allow_missing=True)
        # one of the user's own without deps has no key there
        return _can_hash(stage) and bool(repo.stage_cache._load(stage))
    except (DvcException, OSError):
        return False


def _explained(stage: DvcStage, tree: Path) -> Iterator[str]:
    """Give DVC's reasons; a digest in inputs/ that changed is told by what in it changed."""
    recorded = {
        _inside(dep.fs_path, tree): dep.hash_info.value for dep in stage.deps if dep.hash_info
    }
    for reason in _reasons(stage.status(), tree):
        path = reason.removeprefix("deps ").removesuffix(": modified")
        lines = []
        if path in recorded and path.startswith("inputs/"):
            lines = input_history.explain(tree, tree / path, str(recorded[path]))
        yield from lines or [reason]


def _reasons(status: DvcStatus, tree: Path) -> Iterator[str]:
    for entries in status.values():
        for entry in entries:
            if isinstance(entry, str):
                yield entry
                continue
            for kind, changes in entry.items():
                for path, change in changes.items():
                    if isinstance(change, dict):
                        yield from (f"params {key}: {how}" for key, how in change.items())
                    else:
                        yield f"{kind.removeprefix('changed ')} {_inside(path, tree)}: {change}"


def _inside(path: str, tree: Path) -> str:
    """Write a path as seen from `tree`: DVC writes some as seen from the current folder."""
    place = Path(path).resolve()
    return str(place.relative_to(tree.resolve())) if place.is_relative_to(tree.resolve()) else path


def downstream(graph: Graph, names: set[str]) -> set[str]:
    """Return every stage that waits, directly or not, for one of `names`."""
    found: set[str] = set()
    for name, ups in graph.items():
        if found.intersection(ups) or names.intersection(ups):
            found.add(name)
    return found - names


# Process groups of the stages now running: an interrupt of the command kills them.
LIVE: set[int] = set()


def kill_all() -> None:
    """Kill every stage that runs now, with all it started."""
    for pid in tuple(LIVE):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


Outcome = Literal["ran", "restored", "unchanged"]


def warm_parent() -> ForkServerContext:
    """Return the context whose server process imports DVC once and forks for each stage.

    That process starts now, in the background, and stays for the life of this one.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fettle.adapters.dvc_graph"])
    with _safe_path():
        forkserver.ensure_running()
    return context


@contextmanager
def _safe_path() -> Iterator[None]:
    """Start a Python that does not look for modules in the current folder first (its `-P`)."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def run_stage(
    context: ForkServerContext,
    tree: Path,
    name: str,
    *,
    force: bool,
    timeout_s: float,
    on_tick: Callable[[], None],
) -> tuple[int, Path]:
    """Run one stage through DVC in a killable child; return its exit code and its log.

    `on_tick` is called about four times a second while it runs. A time-out or an interrupt kills
    the whole process group.
    """
    log = tree / "records" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    lifeline, held = context.Pipe(duplex=False)
    child = context.Process(
        target=_reproduce, args=(str(tree), name, str(log), force, dict(os.environ), lifeline)
    )
    child.start()
    lifeline.close()
    LIVE.add(child.pid or 0)
    deadline = time.monotonic() + timeout_s
    try:
        while child.exitcode is None and time.monotonic() < deadline:
            child.join(0.05)
            on_tick()
    finally:
        if child.exitcode is None and child.pid is not None:
            os.killpg(child.pid, signal.SIGKILL)
            child.join()
        LIVE.discard(child.pid or 0)
        held.close()
    return child.exitcode or 0, log


def _reproduce(
    tree: str,
    name: str,
    log: str,
    force: bool,
    environ: dict[str, str],
    lifeline: Connection[object, object],
) -> None:
    """Run in the child process: own process group, output to the log, dies with its run."""
    os.setsid()
    die_with_owner(lifeline)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(tree)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    dvc_lock.write_whole()
    try:
        with Repo(tree, _wait_for_lock=True, config=CONFIG) as repo:
            repo.reproduce(targets=[name], single_item=True, force=force, run_cache=not force)
    except DvcException as err:
        os.write(2, f"{err}{f': {err.__cause__}' if err.__cause__ else ''}\n".encode())
        sys.stdout.flush()
        os._exit(255)
    sys.stdout.flush()
    os._exit(0)


def record_first(tree: Path) -> None:
    """Record the first stage in dvc.lock as a `dvc repro` would: what it writes is written already.

    Without it the first plain `dvc repro` in a clone would change a lock that was committed.
    """
    logging.getLogger("dvc").setLevel(logging.WARNING)  # it would say so among our own lines
    with _open(tree) as repo:
        for stage in _of_line(repo, tree):
            if stage.name == FIRST and stage.changed_outs():
                stage.save()
                stage.dump(update_pipeline=False)


def restore(tree: Path, name: str) -> bool:
    """Put the last good artefact of a failed stage back from the cache; False if none."""
    try:
        with _open(tree) as repo:
            outs = [out for out in _find(repo, tree, name).outs if out.hash_info]
            for out in outs:
                out.checkout(force=True)
            return bool(outs)
    except (DvcException, FettleError):
        return False
