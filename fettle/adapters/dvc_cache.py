"""DVC cache: which of its objects no lock, branch, tag or recent run names, as `dvc gc` counts it.

One cache serves the project and its workspaces, so all their locks are asked; of a project in git
every branch, tag and remote branch too. What cannot be read there keeps all: nothing is collected.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fettle.adapters.dvc_graph import translate
from fettle.adapters.dvc_protocols import DvcCacheRepo, DvcStore

LISTING = ".dir"  # at the end of the digest of a folder
REFS = ("refs/heads", "refs/tags", "refs/remotes", "refs/stash", "refs/exps")
# of an annotated tag the commit that it names
COMMIT = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"


def unused(trees: Sequence[Path], *, run_since_s: float) -> list[Path]:
    """List the objects, and the run-cache's entries, that nothing names; the first tree is first.

    A run whose record is younger than `run_since_s` (seconds since 1970) keeps what it made.
    Raises ProjectError where a lock cannot be read.
    """
    if not (trees[0] / ".dvc" / "cache").is_dir():
        return []
    logging.getLogger("dvc").setLevel(logging.ERROR)  # it would warn of each missing object
    try:
        with ExitStack() as stack:
            repos = [stack.enter_context(_open(tree)) for tree in trees if _is_repo(tree)]
            for repo in repos:
                stack.enter_context(repo.lock)
            return sorted(_unnamed(repos, run_since_s))
    except DvcException as err:
        raise translate(err) from err


def _is_repo(tree: Path) -> bool:
    return (tree / ".dvc").is_dir() and (tree / "dvc.yaml").is_file()


def _open(tree: Path) -> DvcCacheRepo:
    return cast(DvcCacheRepo, Repo(str(tree), _wait_for_lock=True))


def _unnamed(repos: Sequence[DvcCacheRepo], run_since_s: float) -> Iterator[Path]:
    entries = list(Path(repos[0].stage_cache.cache_dir).glob("*/*/*"))
    recent = {path for path in entries if path.stat().st_mtime >= run_since_s}
    used = {name for path in recent for name in _made_by(path)}
    for repo in repos:
        found = repo.used_objs(revs=_revisions(repo) or None, force=True)
        used |= {one.value for objects in found.values() for one in objects if one.value}
    yield from (path for path in entries if path not in recent)
    stores = {store.path: store for _, store in repos[0].cache.by_scheme() if store is not None}
    for store in stores.values():
        used |= {name for folder in used for name in _listed(store, folder)}
    for store in stores.values():
        yield from (Path(store.oid_to_path(name)) for name in store.all() if name not in used)


def _made_by(run: Path) -> Iterator[str]:
    """Name what a run made, by its entry in the run-cache; nothing of one that cannot be read."""
    with suppress(OSError, YAMLError, UnicodeDecodeError):
        doc = YAML(typ="safe", pure=True).load(run.read_text())
        outs = doc.get("outs", []) if isinstance(doc, dict) else []
        yield from (str(out["md5"]) for out in outs if isinstance(out, dict) and "md5" in out)


def _listed(store: DvcStore, name: str) -> Iterator[str]:
    """Name the files of a folder, by its listing."""
    if name.endswith(LISTING):
        with suppress(OSError, ValueError, KeyError, TypeError):
            listing = json.loads(Path(store.oid_to_path(name)).read_text())
            yield from (str(one["md5"]) for one in listing)


def _revisions(repo: DvcCacheRepo) -> list[str]:
    """List every commit that a name of git points to; none outside git."""
    if isinstance(repo.scm, NoSCM):
        return []
    words = ["git", "for-each-ref", f"--format={COMMIT}", *REFS]
    done = subprocess.run(words, cwd=repo.root_dir, capture_output=True, text=True, check=True)
    return sorted(set(done.stdout.split()))
