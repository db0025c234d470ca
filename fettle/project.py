"""Know the project: its folder, its state, and the inputs that DVC cannot see by itself.

A project is a folder with params.yaml and dvc.yaml; nothing is found relative to this package.

    root/.fettle/     state that survives runs: MLflow's and Prefect's databases, server pids, locks
    root/releases/    published releases, one folder a digest, never touched by DVC
    tree/             where DVC runs: the root itself, or a workspace root/.fettle/ws/NAME
    tree/inputs/      source.json, model.json, machine.json, toolchain/, float_runtimes.json,
                      table_runtimes.json, code/: digests of what lives outside the tree, refreshed
                      before DVC is asked; local.yaml: the paths and servers, untracked
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import manifest, plugins, server_addresses
from fettle.errors import BusyError, DataError, ModelError, ProjectError
from fettle.hardware import machine_fingerprint
from fettle.hardware.toolchain_facts import (
    float_runtime_facts,
    profiled_runtime_facts,
    toolchain_facts,
)

# offered here too: callers ask the project for its paths (the aliases mark a re-export)
from fettle.local_settings import OVER, PARAMETER
from fettle.local_settings import local_settings as local_settings
from fettle.local_settings import location as location
from fettle.local_settings import set_local as set_local
from fettle.params import Params
from fettle.process_environment import QUIET as QUIET
from fettle.process_environment import past_proxies
from fettle.staleness import code_digest
from fettle.staleness.input_history import keep

if TYPE_CHECKING:
    from fettle.facts.last_run import LastRun

# SQLAlchemy cuts a file's path at '?' and reads '%41' as 'A' (seen with MLflow 3.17).
UNPLACEABLE = re.compile(r"\?|%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\ud800-\udfff]")
# SQLite opens no path above 512 bytes; the longest below a project, with its journal, has 85.
ROOT_BYTES_MAX = 420

FORMER_COMMAND = "python -m stages"
NO_SCM = "    no_scm = true  # no git here: fettle takes this out once there is\n"


@dataclass(frozen=True, slots=True)
class Project:
    """`root` holds params.yaml and the state; `tree` is where DVC runs (root, or a workspace)."""

    root: Path
    tree: Path

    @property
    def state(self) -> Path:
        """The folder of databases, locks and workspaces."""
        return self.root / ".fettle"

    @property
    def releases(self) -> Path:
        """The folder of published releases."""
        return self.root / "releases"

    @property
    def own_database(self) -> str:
        """The project's own database of MLflow."""
        return f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow tracks the runs: a team's server (fettle/server_addresses.py), or its own.

        Raises ProjectError for an address that is none.
        """
        found = server_addresses.resolve(self.root, os.environ, "MLFLOW_TRACKING_URI")
        return found.url if found else self.own_database

    @property
    def registry_uri(self) -> str:
        """Where MLflow's model registry is; raises as `tracking_uri`."""
        found = server_addresses.resolve(self.root, os.environ, "MLFLOW_REGISTRY_URI")
        return found.url if found else self.own_database

    @property
    def last(self) -> Path:
        """What the last finished run of this tree left: its release and its stages."""
        return self.tree / ".fettle" / "last.json"

    def read_last(self) -> LastRun | None:
        """Read `last`, or None before the first finished run."""
        from fettle.facts.last_run import LastRun

        return LastRun.read(self.last) if self.last.is_file() else None


def find(folder: Path | None = None) -> Project:
    """Take the current folder as the project.

    Raises ProjectError when it has no params.yaml and dvc.yaml, or a graph of an earlier fettle;
    see also `refuse_place`.
    """
    root = (folder or Path.cwd()).resolve()
    refuse_place(root)
    missing = [name for name in ("params.yaml", "dvc.yaml") if not (root / name).is_file()]
    if missing:
        raise ProjectError(
            f"{root} is no fettle project",
            got=f"no {' and no '.join(missing)}",
            rule="fettle works on the project in the current folder",
            fix="cd into a project, or make one with `fettle init DIR --data PHOTOS`",
        )
    if FORMER_COMMAND in (root / "dvc.yaml").read_text():
        raise ProjectError(
            f"{root / 'dvc.yaml'} was written by an earlier fettle",
            got=f"a stage that calls `{FORMER_COMMAND}`",
            rule="its stages are `fettle stage NAME` now, and depend on other files",
            fix="make a project elsewhere (`fettle init new`) and copy its dvc.yaml over this one; "
            "the params and the cache stay, every stage runs once",
        )
    return Project(root, root)


def refuse_place(root: Path) -> None:
    """Raise ProjectError for a folder whose name the address of a database cannot hold."""
    fix = "rename that folder"
    if bad := UNPLACEABLE.search(str(root)):
        got = f"{root} with {bad[0]!r}"
        rule = (
            "the databases' addresses are URLs, in which '?' ends a path, '%41' is a letter, "
            "and no line ends; the databases would be made in another folder"
        )
        if "\udc80" <= bad[0] <= "\udcff" and sys.getfilesystemencoding() != "utf-8":
            fix = "set PYTHONUTF8=1: this Python does not read file names as UTF-8; else rename it"
    elif (size := len(os.fsencode(root))) > ROOT_BYTES_MAX:
        got, rule = f"a path of {size} bytes", f"SQLite's limit leaves it {ROOT_BYTES_MAX}"
        fix = "move the project nearer the top"
    else:
        return
    raise ProjectError("a project cannot lie in this folder", got=got, rule=rule, fix=fix)


def trees(project: Project) -> list[Path]:
    """List the folders where DVC runs: the project's own, then its workspaces."""
    return [project.tree, *sorted(project.state.glob("ws/*"))]


def environment(project: Project) -> dict[str, str]:
    """Return the variables every child process gets: quiet, offline, state in the project, and no
    proxy before what runs on this machine.
    """
    bin_folder = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "")
    return {
        **QUIET,
        "PATH": path if path.startswith(bin_folder) else f"{bin_folder}{os.pathsep}{path}",
        "PREFECT_HOME": str(project.state / "prefect"),
        **server_addresses.variables(project.root, os.environ, project.own_database),
        "DVC_SITE_CACHE_DIR": str(project.state / "dvc-site"),
        "FETTLE_ROOT": str(project.root),
        **past_proxies(os.environ),
    }


def remember(tree: Path, params: Params, *, data: Path | None, model: Path | None) -> None:
    """Keep the paths of `--data` and `--model` in inputs/local.yaml, if there is use for them.

    Raises DataError or ModelError when there is nothing at the path, or when the source or the
    family takes none; nothing is written then.
    """
    taken = _paths(params)
    asks = {"data": "ingest.source", "model": "finetune.family"}
    for key, path, wrong in (("data", data, DataError), ("model", model, ModelError)):
        if path is None:
            continue
        plugin, takes, _ = taken[key]
        if not path.exists():
            raise wrong(f"there is no {key} at {path.resolve()}", fix=f"give --{key} what is there")
        if not takes:
            raise wrong(
                f"--{key} is not taken by {plugin}",
                got=str(path),
                rule="it brings its own",
                fix=f"leave --{key} out, or name another in params.yaml: {asks[key]}",
            )
    for key, path in (("data", data), ("model", model)):
        if path is not None:
            set_local(tree, key, path, instead_of=taken[key][2])


def overridden(tree: Path, params: Params) -> list[str]:
    """Say which paths of the params inputs/local.yaml replaces, a line each."""
    settings = local_settings(tree)
    return [
        f"{key}: {settings[key]}, by inputs/local.yaml instead of {PARAMETER[key]} '{named}'"
        for key, (_, takes, named) in _paths(params).items()
        if takes and key in settings and named is not None
        # what it replaced when it was written; any other is an error (fettle/local_settings.py)
        if named == settings.get(OVER.format(key))
    ]


def _paths(params: Params) -> dict[str, tuple[str, bool, str | None]]:
    """Return {key: (what reads it, whether it takes a path, the path that the params name)}."""
    source, family = params.ingest, params.finetune
    found = {}
    for key, what, folder, name, options in (
        ("data", "source", "sources", source.source, source.options),
        ("model", "family", "families", family.family, family.options),
    ):
        plugin = plugins.resolve(folder, name, where=PARAMETER[key])
        takes = "path" in plugin.Params.model_fields
        found[key] = (f"the {what} {name}", takes, options.get("path") if takes else None)
    return found


def tell_dvc_of_git(root: Path) -> None:
    """Keep `core.no_scm` of .dvc/config.local in step with whether the project lies in git.

    DVC dies without git unless that is set, and compares no commits (`dvc metrics diff`) where it
    is. A project whose own .dvc/config sets it is left alone.
    """
    shared, local = root / ".dvc" / "config", root / ".dvc" / "config.local"
    if not shared.is_file() or "no_scm" in shared.read_text():
        return
    in_git = any((folder / ".git").exists() for folder in (root, *root.resolve().parents))
    said = local.is_file() and NO_SCM in local.read_text()
    if in_git and said:
        local.write_text(local.read_text().replace(NO_SCM, "", 1))
    elif not in_git and not said:
        before = local.read_text() if local.is_file() else ""
        head, core, rest = before.rpartition("[core]\n")
        local.write_text(f"{head}{core}{NO_SCM}{rest}" if core else f"[core]\n{NO_SCM}{before}")


def refresh_inputs(project: Project, params: Params) -> None:
    """Write the digests DVC depends on; a file is touched only when its content changed."""
    tell_dvc_of_git(project.tree)
    inputs = project.tree / "inputs"
    source = plugins.resolve("sources", params.ingest.source, where="ingest.source")
    options = source.Params.model_validate(params.ingest.options, strict=False)
    place = location(project.tree, options)
    remembered = local_settings(project.tree).get("data")
    if remembered is not None and place is not None and not place.exists():
        raise DataError(
            f"there is no data at {place}",
            got=f"data: {remembered} in {inputs / 'local.yaml'}",
            rule="`--data` wrote it there",
            fix="name where it lies now with `fettle run --data PATH`, or delete that line",
        )
    keep(
        project.tree,
        inputs / "source.json",
        {"source": params.ingest.source, **source.fingerprint(options, place)},
    )
    keep(project.tree, inputs / "model.json", _model_files(project, params))
    keep(project.tree, inputs / "machine.json", machine_fingerprint.fingerprint())
    for name in params.targets:
        keep(project.tree, inputs / "toolchain" / f"{name}.json", toolchain_facts(name))
    keep(project.tree, inputs / "float_runtimes.json", float_runtime_facts())
    tabled = (
        [params.compress.objective.target] if params.compress.objective.target else params.targets
    )
    keep(project.tree, inputs / "table_runtimes.json", profiled_runtime_facts(tabled))
    code_digest.refresh(project.tree, params, project.state)


def _model_files(project: Project, params: Params) -> dict[str, object]:
    """Digest the user's own model files and code, when the family has any."""
    family = plugins.resolve("families", params.finetune.family, where="finetune.family")
    options = family.Params.model_validate(params.finetune.options, strict=False)
    paths = family.files(options, project.tree) if hasattr(family, "files") else []
    root = project.root.resolve()
    files: dict[str, str] = {}
    for path in sorted(path.resolve() for path in paths):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        digest = manifest.sha256_file(path)
        # files outside the project may share a name
        files[name] = f"{files[name]} {digest}" if name in files else digest
    return {"family": params.finetune.family, "files": files}


@contextmanager
def hold(project: Project, command: str) -> Iterator[None]:
    """Hold the project: one run at a time; the kernel frees the lock on any death.

    Raises BusyError naming the process that holds the work.
    """
    import fcntl

    path = project.state / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise BusyError(
                "another run holds this project",
                got=holder,
                rule="one run at a time works on a project",
                fix="wait for it, or stop that process and run again",
            ) from err
        handle.truncate(0)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        handle.write(f"process {os.getpid()} (`{command}`, since {started})")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)
