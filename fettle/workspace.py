"""Run other params beside the project's own: a snapshot of the sources with a composed params.yaml.

`fettle run --params FILE --set KEY=VALUE` works in root/.fettle/ws/NAME, with its own dvc.lock and
artefacts and the shared cache, so neither the user's params.yaml nor dvc.lock is touched, and an
edit made while it runs is not recorded as if it had been used.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fettle import local
from fettle import params as params_file
from fettle.adapters import git
from fettle.errors import FettleError, ParamsError
from fettle.manifest import write_text
from fettle.project import Project

KEPT = {".fettle", ".dvc", "artifacts", "inputs", "records", "dvc.lock", "params.yaml", "report"}


def prepare(project: Project, params: Path | None, overrides: Sequence[str]) -> Project:
    """Make or refresh the workspace of these params; return the project that runs there.

    Raises ParamsError when the file is missing or an override names no existing key.
    """
    if params is None and not overrides:
        return project
    chosen = params or project.root / "params.yaml"
    if not chosen.is_file():
        raise ParamsError(
            f"no params file at {chosen}", fix="give --params an existing file (see examples/)"
        )
    composed = params_file.compose(chosen, overrides)
    params_file.check(composed, chosen.name)
    tree = locate(project, params, overrides).tree
    sync(project.root, tree)
    text = io.StringIO()
    YAML(typ="rt").dump(composed, text)
    _write(tree / "params.yaml", text.getvalue())
    inherit_paths(project.root, tree, composed)
    cache = project.root / ".dvc" / "cache"
    _write(
        tree / ".dvc" / "config",
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
        f"[cache]\n    dir = {cache}\n",
    )
    return Project(project.root, tree)


def name_of(params: Path, overrides: Sequence[str]) -> str:
    """Name a workspace after its file and overrides: the same request finds the same folder."""
    stem = re.sub(r"[^a-z0-9]+", "-", params.stem.lower()).strip("-")
    if not overrides and params.stem != "params":
        return stem
    digest = hashlib.sha256("\n".join([str(params.resolve()), *overrides]).encode()).hexdigest()
    return f"{stem}-{digest[:8]}"


def sync(root: Path, tree: Path) -> None:
    """Make `tree` hold exactly the sources of `root`; a file that is the same is left alone."""
    wanted = {p for p in git.source_files(root) if p.parts[0] not in KEPT}
    for path in wanted:
        source, target = root / path, tree / path
        data = source.read_bytes()
        if target.is_file() and target.read_bytes() == data:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    if (root / ".dvcignore").is_file():
        shutil.copy2(root / ".dvcignore", tree / ".dvcignore")
    for path in git.source_files(tree):
        if path.parts[0] not in KEPT and path not in wanted and path != Path(".dvcignore"):
            (tree / path).unlink()


def inherit_paths(root: Path, tree: Path, composed: Any) -> None:  # Any: a YAML tree
    """Carry the project's local paths (data, model) into a workspace, anew each time.

    Left out are those that these very params name themselves, otherwise than the project's own
    params.yaml. A path that `--data` gave to this workspace alone is kept: it is what differs from
    the copy of what was inherited before.
    """
    given = dict(local.local_settings(root))
    try:
        usual = params_file.compose(root / "params.yaml")
    except (FettleError, OSError):
        usual = None
    for key, parameter in local.PARAMETER.items():
        named = _at(composed, parameter)
        if named != _at(usual, parameter) and local.conflicts(given, key, named, root):
            del given[key]
    copy = tree / "inputs" / "inherited.json"
    before = json.loads(copy.read_text()) if copy.is_file() else {}
    own = {k: v for k, v in local.local_settings(tree).items() if before.get(k) != v}
    for key in [key for key in local.PARAMETER if key in own]:
        given.pop(local.OVER.format(key), None)
    if given or own or copy.is_file():
        local.write_settings(tree, {**given, **own})
        write_text(copy, json.dumps(given, sort_keys=True))


def _at(doc: Any, parameter: str) -> str | None:  # Any: a YAML tree
    for part in parameter.split("."):
        doc = doc.get(part) if isinstance(doc, dict) else None
    return doc if isinstance(doc, str) else None


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


def locate(project: Project, params: Path | None, overrides: Sequence[str]) -> Project:
    """Find the workspace of these params without touching it; the project itself if none given."""
    if params is None and not overrides:
        return project
    chosen = params or project.root / "params.yaml"
    return Project(project.root, project.state / "ws" / name_of(chosen, overrides))
