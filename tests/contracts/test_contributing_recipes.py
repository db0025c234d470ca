"""CONTRIBUTING's recipes, followed as written in a copy of the sources: one file adds one thing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fettle import plugins

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
COPIED = ("fettle", "stages", "tests/contracts", "tests/support", "tests/conftest.py")
FILES = ("params.yaml", "pyproject.toml")
# folder → (a plug-in to copy, the new one's name: next to it in the alphabet)
RECIPES = {
    "targets": ("x86_ort_w8", "x86_wide_ort_w8"),
    "runtimes": ("iree", "iree_again"),
    "techniques": ("distil", "distil_again"),
    "sources": ("digits", "digits_again"),
    "families": ("small_cnn", "small_cnn_again"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with the five recipes followed."""
    tree = tmp_path_factory.mktemp("clone")
    for name in (*COPIED, *FILES):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", Path(__file__).name)
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tree / name)
    for folder, (like, new) in RECIPES.items():
        place = tree / plugins.folder_of(folder)
        shutil.copy(place / f"{like}.py", place / f"{new}.py")
        if folder == "runtimes":
            follow_isolated(place, like, new)
        contract = tree / f"tests/contracts/test_{folder}_contract.py"
        text = contract.read_text()
        contract.write_text(text.replace(f'"{like}"', f'"{like}", "{new}"', 1))
    return tree


def follow_isolated(runtimes: Path, like: str, new: str) -> None:
    """Give the copied runtime a toolchain of its own: its record's name, its script and its lock.

    The lock is a copy: `python tools/lock.py --toolchain NAME` asks PyPI.
    """
    record = runtimes / f"{new}.py"
    record.write_text(record.read_text().replace(f'name="{like}"', f'name="{new}"', 1))
    isolated = runtimes.parent / "isolated"
    shutil.copy(isolated / f"scripts/run_{like}.py", isolated / f"scripts/run_{new}.py")
    shutil.copy(isolated / f"locks/{like}.txt", isolated / f"locks/{new}.txt")


def pytest_in(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *words]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_every_file_that_a_recipe_names_exists() -> None:
    named = re.findall(r"`((?:fettle|tests)/[\w/.]+)`", TEXT)
    given = [name for name in named if not re.search(r"[A-Z]{3}", name)]
    assert len(given) >= 7
    assert [name for name in given if not (ROOT / name).exists()] == []


def test_each_recipe_s_contract_holds_for_the_new_file(copy: Path) -> None:
    news = [new for _, new in RECIPES.values()]
    chosen = " or ".join([*news, "are_these", "are_found"])
    # what a copy cannot keep (its data is the same), and what takes long: lowering to ONNX
    done = pytest_in(copy, "tests/contracts", "-v", "-k", f"({chosen}) and not lowers")
    assert done.returncode == 0, done.stdout[-3000:]
    for new in news:
        assert len(re.findall(rf"\[{new}\S*\] PASSED", done.stdout)) >= 4


def test_a_recipe_half_followed_is_told(copy: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/contracts/test_targets_contract.py", copy / "tests/contracts/old.py")
    done = pytest_in(copy, "tests/contracts/old.py", "-k", "are_found")
    assert done.returncode == 1
    assert "x86_wide_ort_w8" in done.stdout
