"""Run other params beside the project's own: a snapshot of the sources with a composed params.yaml.

`fettle run --params FILE --set KEY=VALUE` works in root/.fettle/ws/NAME, with its own dvc.lock and
artefacts and the shared cache, so neither the user's params.yaml nor dvc.lock is touched, and an
edit made while it runs is not recorded as if it had been used.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from fettle import local_settings as local
from fettle import params as params_file
from fettle.adapters import git_sources
from fettle.errors import FettleError, ProjectError
from fettle.manifest import write_text
from fettle.project import Project, local_settings

KEPT = {".fettle", ".dvc", "artifacts", "inputs", "records", "dvc.lock", "params.yaml", "report"}
KEPT |= {"verdicts.jsonl"}  # the project's own, wherever it runs
OWNER = Path(".fettle") / "params-file"  # below a workspace: which params file has its plain name
NAME_MAX = 48  # characters; a file system takes 255 bytes, and a path is made of many names


def prepare(project: Project, params: Path | None, overrides: Sequence[str]) -> Project:
    """Make or refresh the workspace of these params; return the project that runs there.

    Raises ParamsError when the file is missing or an override names no existing key.
    """
    if params is None and not overrides:
        return project
    chosen = params or project.root / "params.yaml"
    composed = params_file.compose(chosen, overrides)
    params_file.check(composed, chosen)
    tree = locate(project, params, overrides).tree
    sync(project.root, tree, data=_data_folders(project.root, composed))
    _write(tree / OWNER, _owner(project, chosen))
    text = io.StringIO()
    YAML(typ="rt").dump(composed, text)
    _write(tree / "params.yaml", text.getvalue())
    inherit_paths(project.root, tree, composed)
    # Relative to the config's own folder: a path with #, a comma or a quote would be cut or parted.
    cache = os.path.relpath(project.root / ".dvc" / "cache", tree / ".dvc")
    _write(
        tree / ".dvc" / "config",
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
        f"[cache]\n    dir = {cache}\n",
    )
    return Project(project.root, tree)


def name_of(project: Project, params: Path, overrides: Sequence[str]) -> str:
    """Name the workspace of a params file and overrides, one name for each of them.

    A file of Latin letters gives its plain name, unless another file has that workspace already;
    every other request gets a digest of what was asked.
    """
    stem = params.stem
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:NAME_MAX].strip("-")
    digest = hashlib.sha256(_request(params, overrides)).hexdigest()[:8]
    told = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _-]*", stem) and len(stem) <= NAME_MAX
    if told and not overrides and stem != "params":
        owner = project.state / "ws" / slug / OWNER
        if not owner.is_file() or owner.read_text() == _owner(project, params):
            return slug
    return f"{slug or 'params'}-{digest}"


def _request(params: Path, overrides: Sequence[str]) -> bytes:
    lines = [str(params.resolve()), *(o.replace("\n", "\\n") for o in overrides)]
    return os.fsencode("\n".join(lines))


def _owner(project: Project, params: Path) -> str:
    """Write a params file as seen from the project: a moved project finds its workspaces again."""
    file = params.resolve()
    inside = file.is_relative_to(project.root)
    text = file.relative_to(project.root).as_posix() if inside else str(file)
    return os.fsencode(text).decode(errors="backslashreplace")


def _data_folders(root: Path, composed: CommentedMap) -> set[Path]:
    """Find the folders of data below the project, relative to it: pictures' notes are no code."""
    options = composed["ingest"].get("options") or {}
    given = [local_settings(root).get("data"), options.get("path")]
    places = [_resolved(root, one) for one in given if isinstance(one, str)]
    folders = [place if place.is_dir() else place.parent for place in places]
    return {f.relative_to(root) for f in folders if f.is_relative_to(root) and f != root}


def _resolved(root: Path, given: str) -> Path:
    with suppress(RuntimeError):  # "~nobody": the source says so
        return (root / Path(given).expanduser()).resolve()
    return root


def sync(root: Path, tree: Path, *, data: set[Path] | None = None) -> None:
    """Make `tree` hold exactly the sources of `root`; a file that is the same is left alone.

    What lies below `data` is none of them, nor are DVC's own files in folders below: they state
    what is tracked there, and this line needs none of it.
    """
    wanted = {p for p in git_sources.source_files(root) if _is_wanted(p, data or set())}
    for path in wanted:
        source, target = root / path, tree / path
        try:
            data_bytes = source.read_bytes()
            if target.is_file() and target.read_bytes() == data_bytes:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        except OSError as err:
            raise ProjectError(
                f"{path} cannot be copied into the workspace",
                got=f"{err.strerror} ({err.filename})",
                rule="a run with --params or --set works on a copy of the project's sources",
                fix="make it readable, or take it out of the project",
            ) from err
    if (root / ".dvcignore").is_file():
        shutil.copy2(root / ".dvcignore", tree / ".dvcignore")
    _drop_others(tree, wanted | {Path(".dvcignore")})


def _is_wanted(path: Path, data: set[Path]) -> bool:
    nested = len(path.parts) > 1 and path.name in ("dvc.yaml", "dvc.lock")
    return path.parts[0] not in KEPT and not nested and not data.intersection(path.parents)


def _drop_others(tree: Path, wanted: set[Path]) -> None:
    """Delete what is no source any more, and the folders that it leaves empty."""
    for folder, folders, files in os.walk(tree, topdown=False):
        here = Path(folder).relative_to(tree)
        for name in (*files, *folders):
            path = here / name
            if path.parts[0] in KEPT or path in wanted:
                continue
            if name in files or (tree / path).is_symlink():
                (tree / path).unlink()
            elif not any((tree / path).iterdir()):
                (tree / path).rmdir()


def inherit_paths(root: Path, tree: Path, composed: object) -> None:
    """Carry the project's local paths (data, model) into a workspace, anew each time.

    Left out are those that these very params name themselves, otherwise than the project's own
    params.yaml. A path that `--data` gave to this workspace alone is kept: it is what differs from
    the copy of what was inherited before.
    """
    settings = local.local_settings(root)
    given = {key: value for key, value in settings.items() if key not in local.SERVERS}
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


def _at(doc: object, parameter: str) -> str | None:
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
    return Project(project.root, project.state / "ws" / name_of(project, chosen, overrides))
