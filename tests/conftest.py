"""Quiet every tool, and keep its state in the tests' own folder."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile

import pytest

from fettle.project import QUIET

os.environ.update(QUIET)
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
    os.environ.pop(name, None)  # of a developer's own servers
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side: a thread each, for torch too
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# The machine's lock lies in the temporary folder: a stage of a test must not wait for a training
# that runs elsewhere. Short, because sockets are made in it (108 characters on Linux).
os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="fettle-")
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
gc.disable()  # while the tests are imported


def pytest_collection_finish() -> None:
    """Leave what was imported out of every garbage collection: a tenth of the CPU time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def own_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test meet the project root of another: a command that runs in this process names its
    own in the environment, and leaves it there.
    """
    monkeypatch.delenv("FETTLE_ROOT", raising=False)
