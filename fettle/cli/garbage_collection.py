"""Garbage collection: what may go of a project's files, by kind, and what keeps the rest.

Nothing is removed here. Whatever cannot be read is kept; a serving.json that cannot be read may
name a release, so that it ends the whole with its own words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fettle import manifest, plugins
from fettle.adapters import bento_store, mlflow_artifacts, process_identity
from fettle.errors import FettleError, UserError
from fettle.hardware.isolated import toolchain_environment
from fettle.json_values import read_object
from fettle.project import Project, trees
from fettle.release import signing
from fettle.rollout.router import model_servers, nginx_process
from fettle.rollout.supervisor.state_layout import StateLayout

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class GarbageKind:
    """Files of one kind that may go, their bytes; why, and what keeps the others of the kind."""

    name: str
    paths: tuple[Path, ...]
    size_bytes: int
    why: str
    kept: str


@dataclass(frozen=True, slots=True)
class GarbageRules:
    """How much is kept: the last `keep` of a kind, and what is younger than `days`."""

    keep: int
    days: float
    now_s: float

    @property
    def since_s(self) -> float:
        """What was changed after this (seconds since 1970) is kept."""
        return self.now_s - self.days * DAY_S


def find(project: Project, rules: GarbageRules) -> list[GarbageKind]:
    """List all kinds, those without files too.

    Raises ProjectError where it cannot be read what serves.
    """
    place = StateLayout(project.state / "canary")
    serving = place.serving()
    arms = (serving.champion, serving.challenger) if serving is not None else ()
    names = {one.release for one in arms if one is not None}
    watched = serving.rollout if serving is not None else None
    return [
        *_of_releases(project, place, names, rules),
        *_of_rollouts(place, watched, rules),
        *_of_runs(project, names, rules),
    ]


def _of_releases(
    project: Project, place: StateLayout, names: set[str], rules: GarbageRules
) -> Iterator[GarbageKind]:
    old = old_releases(project, place, names, rules)
    yield _kind(
        "releases",
        [path for release in old for path in _with_papers(release)],
        "neither serves nor is among the newest",
        f"champion, challenger, the last {rules.keep}, the last run's, those of a rollout that is "
        "under way",
    )
    yield _kind(
        "bentos",
        [path for release in old if (path := _bento(release)) is not None],
        "was built of a release above",
        "those of the releases that stay",
    )
    yield _kind(
        "served copies",
        _served_copies(project, place, names),
        "nothing runs from it",
        "champion, challenger, whatever runs",
    )


def _of_rollouts(
    place: StateLayout, watched: str | None, rules: GarbageRules
) -> Iterator[GarbageKind]:
    yield _kind(
        "rollouts",
        _old_rollouts(place, watched, rules),
        "is over; once its journal is gone it can be replayed no more",
        f"the one that is watched, the last {rules.keep}",
    )
    yield _kind(
        "logs",
        _logs(place, rules),
        "was put aside",
        f"the present ones, and the router's last {nginx_process.KEPT_LOGS}",
    )


def _of_runs(project: Project, names: set[str], rules: GarbageRules) -> Iterator[GarbageKind]:
    days = f"{rules.days:g} days"
    yield _kind(
        "workspaces",
        _old_workspaces(project, names, rules),
        f"was not run for {days}; `fettle run` makes it again",
        f"the last {rules.keep}, the one with the images of a release that serves",
    )
    yield _kind(
        "scratch",
        _old_scratch(project, rules),
        f"checkpoints of a stage that was not taken up again for {days}",
        "younger ones",
    )
    yield _kind("toolchains", _half_toolchains(rules), "its install was killed", "whole ones")
    yield _dvc(project, rules)
    yield _kind(
        "MLflow",
        mlflow_artifacts.orphans(project.state, since_s=rules.since_s),
        "files of a run that MLflow shows no more",
        "those of every run that it shows",
    )


def _kind(name: str, paths: Iterable[Path], why: str, kept: str) -> GarbageKind:
    found = tuple(paths)
    return GarbageKind(name, found, sum(size(path) for path in found), why, kept)


def old_releases(
    project: Project, place: StateLayout, serving: Iterable[str], rules: GarbageRules
) -> list[Path]:
    """List the published releases that nothing needs, oldest first."""
    found = [
        path
        for path in project.releases.glob("*")
        if path.is_dir() and not path.name.startswith(".") and (path / "release.json").is_file()
    ]
    order = sorted(found, key=_published_s)
    needed = {*serving, *_named_by_runs(project), *_named_by_rollouts(place)}
    newest = {path.name for path in order[max(0, len(order) - rules.keep) :]}
    return [path for path in order if path.name not in needed | newest]


def _published_s(release: Path) -> float:
    """Return when a release was published: its signature is written then, its files keep theirs."""
    for path in (signing.of_release(release), release):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _named_by_runs(project: Project) -> Iterator[str]:
    for tree in trees(project):
        with suppress(OSError, ValueError, KeyError, TypeError):
            last = json.loads((tree / ".fettle" / "last.json").read_text())
            yield Path(str(last["release"]["folder"])).name


def _named_by_rollouts(place: StateLayout) -> Iterator[str]:
    """Name the releases of each rollout that its own files do not call over."""
    from fettle.rollout.promotion.rollout_state import is_over

    for rollout in place.rollouts():
        if is_over(place.stated(rollout) or ""):
            continue
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            begun = json.loads((place.rollout(rollout) / "begin.json").read_text())
            yield from (Path(str(folder)).name for folder in begun["folders"].values())


def _with_papers(release: Path) -> list[Path]:
    """Return a release's folder with its signatures and its lineage."""
    return [release, *sorted(release.parent.glob(f"{release.name}.*"))]


def _bento(release: Path) -> Path | None:
    """Return the Bento of a release that this project signed, where it stands in the store."""
    doc = read_object(release / "release.json") or {}
    if not signing.of_bento(release).is_file() or not isinstance(doc.get("name"), str):
        return None
    try:
        return bento_store.bento_folder(f"{doc['name']}:{release.name}")
    except FettleError:
        return None


def _served_copies(project: Project, place: StateLayout, names: Iterable[str]) -> Iterator[Path]:
    kept = set(names)
    running = {
        server.release for server in model_servers.ModelServers(place.arms, {}, key=None).running()
    }
    for path in sorted(place.arms.glob("*")):
        if path.is_dir() and path.name not in kept | running:
            yield path
    used = _command_lines()
    for path in sorted((project.state / "serve").glob("*")):
        router = path / "router"
        busy = router.is_dir() and nginx_process.running(router) is not None
        if path.is_dir() and not busy and f"{path}/" not in used:
            yield path
    if (rehearsal := project.state / "rehearsal").is_dir() and f"{rehearsal}/" not in used:
        yield rehearsal


def _command_lines() -> str:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += process.cmdline()
    return "\n".join(found)


def _old_rollouts(place: StateLayout, watched: str | None, rules: GarbageRules) -> Iterator[Path]:
    from fettle.rollout.promotion.rollout_state import is_over

    over = [one for one in place.rollouts() if one != watched and is_over(place.stated(one) or "")]
    for rollout in over[: max(0, len(over) - rules.keep)]:
        if process_identity.read(place.rollout(rollout) / "rerun.json") is None:
            yield place.rollout(rollout)


def _logs(place: StateLayout, rules: GarbageRules) -> Iterator[Path]:
    for pattern in ("*.log.1", "*/*.log.1", "*/*/*.log.1"):
        yield from sorted(place.folder.glob(pattern))
    aside = sorted(place.router.glob("attempts-*.log"))
    yield from aside[: max(0, len(aside) - nginx_process.KEPT_LOGS)]
    for path in sorted(place.outbox.glob("*")):
        if path.is_file() and path.stat().st_mtime < rules.since_s:
            yield path


def _old_workspaces(
    project: Project, serving: Iterable[str], rules: GarbageRules
) -> Iterator[Path]:
    found = [path for path in (project.state / "ws").glob("*") if path.is_dir()]
    order = sorted(found, key=_last_run_s)
    needed = {_images_of(project.releases / name) for name in serving} - {None}
    for path in order[: max(0, len(order) - rules.keep)]:
        if _last_run_s(path) < rules.since_s and _ingested(path) not in needed:
            yield path


def _ingested(workspace: Path) -> str | None:
    """Return the digest of the images of a workspace, as a release names its own."""
    try:
        return manifest.sha256_file(workspace / "artifacts" / "ingest" / manifest.NAME)
    except OSError:
        return None


def _last_run_s(workspace: Path) -> float:
    files = ("dvc.lock", "params.yaml", ".fettle/last.json", "records")
    times = [0.0]
    for name in files:
        with suppress(OSError):
            times.append((workspace / name).stat().st_mtime)
    return max(times)


def _images_of(release: Path) -> object:
    data = (read_object(release / "release.json") or {}).get("data")
    return data.get("ingest") if isinstance(data, dict) else None


def _old_scratch(project: Project, rules: GarbageRules) -> Iterator[Path]:
    for tree in trees(project):
        for path in sorted((tree / ".fettle" / "scratch").glob("*")):
            if _newest_s(path) < rules.since_s:
                yield path


def _newest_s(path: Path) -> float:
    times = [0.0]
    for one in (path, *path.rglob("*")):
        with suppress(OSError):
            times.append(one.lstat().st_mtime)
    return max(times)


def _half_toolchains(rules: GarbageRules) -> Iterator[Path]:
    """List environments that an install that was killed left half made, not those under way."""
    try:
        root = toolchain_environment.root()
    except UserError:
        return
    known = set(plugins.names("runtimes"))
    for path in sorted(root.glob("*-*")):
        named = path.name.rpartition("-")[0]
        whole = (path / toolchain_environment.STAMP).is_file()
        if path.is_dir() and named in known and not whole and _newest_s(path) < rules.now_s - DAY_S:
            yield path


def _dvc(project: Project, rules: GarbageRules) -> GarbageKind:
    from fettle.adapters import dvc_cache

    why = "no lock, branch or tag names it; its stage would run again"
    kept = (
        f"whatever one names, here and in the workspaces, and runs of the last {rules.days:g} days"
    )
    try:
        found = dvc_cache.unused(trees(project), run_since_s=rules.since_s)
    except FettleError as err:
        return _kind("DVC cache", (), why, f"all of it: {err.what}")
    return _kind("DVC cache", found, why, kept)


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    total = 0
    for one in [path] if path.is_file() and not path.is_symlink() else path.rglob("*"):
        with suppress(OSError):
            if one.is_file() and not one.is_symlink():
                total += one.lstat().st_size
    return total
