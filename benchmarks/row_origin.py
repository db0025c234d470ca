"""Origin of a benchmark row: ask this machine, its packages, git and the command line."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.benchmark_row import Origin
from benchmarks.toolbox import ROOT
from fettle.hardware import machine_fingerprint

PACKAGES = ("bentoml", "dvc", "mlflow", "numpy", "onnxruntime", "openvino", "prefect", "torch")
# what a benchmark itself writes: a tree that differs there alone is the commit's
WRITTEN = ("benchmarks/results", "docs/benchmarks.md")


def take(command: str, *, tree: Path = ROOT) -> Origin:
    """Describe a run of `command` on the code in `tree`, as it begins."""
    machine = machine_fingerprint.fingerprint()
    return Origin(
        cpu_model=machine["cpu"],
        cpu_flags=tuple(machine["flags"]),
        cores=machine["cores"],
        platform=f"{machine['os']} {machine['machine']}",
        versions={"python": machine["python"], **_versions()},
        commit=_commit(tree),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
    )


def command_line(module: str, words: Sequence[str] | None = None) -> str:
    """Return the command that runs `module` as this process was asked; of a path, the last name."""
    given = sys.argv[1:] if words is None else words
    shown = [Path(word).name if Path(word).is_absolute() else word for word in given]
    return shlex.join(["python", "-m", module, *shown])


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit(tree: Path) -> str | None:
    commit = _git(tree, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(tree, "status", "--porcelain", "--", ".", *(f":!{path}" for path in WRITTEN))
    return f"{commit}-dirty" if changed else commit


def _git(tree: Path, *words: str) -> str:
    """Return what git answers, "" where it has no answer."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=tree, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
