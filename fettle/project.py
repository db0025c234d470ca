"""Know the project: its folder, its state, and the inputs that DVC cannot see by itself.

A project is a folder with params.yaml and dvc.yaml; nothing is found relative to this package.

    root/.fettle/     state that survives runs: MLflow's and Prefect's databases, server pids, locks
    root/releases/    published releases, one folder a digest, never touched by DVC
    tree/             where DVC runs: the root itself, or a workspace root/.fettle/ws/NAME
    tree/inputs/      source.json, model.json, machine.json, code/: digests of what lives outside
                      the tree, refreshed before DVC is asked; local.yaml: the paths, untracked
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fettle import code_digest, manifest, plugins
from fettle.bench import machine
from fettle.errors import BusyError, ProjectError
from fettle.input_history import keep

# offered here too: callers ask the project for its paths (the aliases mark a re-export)
from fettle.local import local_settings as local_settings
from fettle.local import location as location
from fettle.local import set_local as set_local
from fettle.params import Params

# Every tool's own switch. DO_NOT_TRACK: MLflow wants exactly "true".
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "DVC_NO_ANALYTICS": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "GX_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


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
    def tracking_uri(self) -> str:
        """MLflow's database."""
        return f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def last(self) -> Path:
        """What the last finished run of this tree left: its release and its stages."""
        return self.tree / ".fettle" / "last.json"

    def read_last(self) -> dict[str, Any] | None:  # Any: JSON
        """Read `last`, or None before the first finished run."""
        return json.loads(self.last.read_text()) if self.last.is_file() else None


def find(folder: Path | None = None) -> Project:
    """Take the current folder as the project.

    Raises ProjectError when it has no params.yaml and dvc.yaml, or a graph of an earlier fettle.
    """
    root = (folder or Path.cwd()).resolve()
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


def environment(project: Project) -> dict[str, str]:
    """Return the variables every child process gets: quiet, offline, state in the project."""
    bin_folder = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "")
    return {
        **QUIET,
        "PATH": path if path.startswith(bin_folder) else f"{bin_folder}{os.pathsep}{path}",
        "PREFECT_HOME": str(project.state / "prefect"),
        "MLFLOW_TRACKING_URI": project.tracking_uri,
        "DVC_SITE_CACHE_DIR": str(project.state / "dvc-site"),
        "FETTLE_ROOT": str(project.root),
    }


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
    keep(
        project.tree,
        inputs / "source.json",
        {"source": params.ingest.source, **source.fingerprint(options, place)},
    )
    keep(project.tree, inputs / "model.json", _model_files(project, params))
    keep(project.tree, inputs / "machine.json", machine.fingerprint())
    code_digest.refresh(project.tree, params, project.state)


def _model_files(project: Project, params: Params) -> dict[str, Any]:  # Any: JSON
    """Digest the user's own model files and code, when the family has any."""
    family = plugins.resolve("families", params.finetune.family, where="finetune.family")
    options = family.Params.model_validate(params.finetune.options, strict=False)
    paths = family.files(options, project.tree) if hasattr(family, "files") else []
    root = project.root.resolve()
    names = {
        path: path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        for path in sorted(path.resolve() for path in paths)
    }
    return {
        "family": params.finetune.family,
        "files": {name: manifest.sha256_file(path) for path, name in names.items()},
    }


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
