"""Quiet every tool, and keep its state in the test's own folder."""

from __future__ import annotations

import os

from fettle.project import QUIET

os.environ.update(QUIET)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
