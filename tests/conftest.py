"""Quiet every tool, and keep its state in the test's own folder."""

from __future__ import annotations

import os

from fettle.project import QUIET

os.environ.update(QUIET)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side: a thread each, for torch too
    os.environ.setdefault("OMP_NUM_THREADS", "1")
