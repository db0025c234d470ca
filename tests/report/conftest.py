"""Give the tests a finished project to read, and one of their own to break."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_project import build
from fake_tree import Tree


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run ended in a release; read it, do not change it."""
    return build(tmp_path_factory.mktemp("project")).root


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The same, one's own, to break."""
    return build(tmp_path)
