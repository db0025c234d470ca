"""A small DVC project; the warm process that runs its stages is ended after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_graph


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tiny_graph.make(tmp_path, sleep=0)


@pytest.fixture(autouse=True)
def _no_warm_parent_left() -> Iterator[None]:
    yield
    tiny_graph.stop()
