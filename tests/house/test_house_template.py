from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "fettle" / "cli" / "template"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("params.yaml", "params.yaml"),
        ("photos.yaml", "examples/photos.yaml"),
        ("dvc.yaml", "dvc.yaml"),
        ("bentos", "bentos"),
    ],
)
def test_a_new_project_starts_from_the_very_files_of_this_one(name: str, source: str) -> None:
    """A link, not a copy: an editor that writes a file anew puts a copy in its place."""
    assert (TEMPLATE / name).is_symlink()
    assert (TEMPLATE / name).resolve() == ROOT / source
