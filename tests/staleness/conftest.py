"""A copy of our sources, and edits of it that are put back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from source_edits import ROOT, Change, Copy, settings


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    tree = tmp_path_factory.mktemp("copy")
    for name in ("fettle", "stages", "bentos"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    bare = Copy(tree, {})
    return Copy(tree, bare.documents(settings()))


@pytest.fixture
def edit(copy: Copy) -> Iterator[Callable[[str, Change], None]]:
    """Change one file of the copy; all is put back after the test."""
    kept: dict[Path, str] = {}

    def write(file: str, change: Change) -> None:
        path = copy.tree / file
        text = kept.setdefault(path, path.read_text())
        assert change(text) != text, f"{file} stays as it is"
        path.write_text(change(text))

    yield write
    for path, text in kept.items():
        path.write_text(text)
