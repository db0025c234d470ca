"""Hold every file of fettle/data/sources to what ingest relies on."""

from __future__ import annotations

import ast
import hashlib
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_photos

from fettle import plugins
from fettle.data.image_inspection import look
from fettle.data.image_table import SPLITS
from fettle.data.sources import Item, fashion_mnist
from fettle.errors import DataError
from fettle.params import Strict

NAMES = plugins.names("sources")


def load(name: str) -> ModuleType:
    return plugins.resolve("sources", name, where="ingest.source")


@dataclass(frozen=True)
class Given:
    """A source, its options and its data, small."""

    name: str
    source: ModuleType
    options: Any  # the source's own Params
    location: Path | None

    def read(self) -> list[Item]:
        return list(self.source.read(self.options, self.location))

    def fingerprint(self) -> dict[str, Any]:
        found: dict[str, Any] = self.source.fingerprint(self.options, self.location)
        return found


def write_idx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write Fashion-MNIST's files with 40 images in all, and make them the known ones."""
    folder.mkdir()
    files = {}
    for prefix, count in (("train", 30), ("t10k", 10)):
        labels = bytes(at % 10 for at in range(count))
        drawn = tiny_photos.pixels(count, size_px=28, channels=count).tobytes()
        for kind, data in (
            ("images-idx3", struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28) + drawn),
            ("labels-idx1", struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels),
        ):
            name = f"{prefix}-{kind}-ubyte"
            (folder / name).write_bytes(data)
            files[name] = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(fashion_mnist, "FILES", files)
    monkeypatch.setattr(fashion_mnist, "IMAGES", 40)
    return folder


@pytest.fixture(params=NAMES)
def given(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    locations = {  # of those that read the user's data
        "fashion_mnist": write_idx(tmp_path / "idx", monkeypatch),
        "image_folder": tiny_photos.fill(tmp_path / "photos", ["cat", "dog"], 4),
    }
    source = load(request.param)
    return Given(request.param, source, source.Params(), locations.get(request.param))


def test_the_sources_are_these() -> None:
    assert NAMES == ["digits", "fashion_mnist", "image_folder"]


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_entry_is_one_line_that_says_something(name: str) -> None:
    assert 30 <= len(plugins.summary("sources", name)) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_its_options_refuse_an_unknown_key(name: str) -> None:
    assert issubclass(load(name).Params, Strict)
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        load(name).Params(colour="red")


@pytest.mark.parametrize("name", NAMES)
def test_a_source_imports_no_other_source(name: str) -> None:
    text = (plugins.folder_path("sources") / f"{name}.py").read_text()
    imported = {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module == "fettle.data.sources"
        for alias in node.names
    }
    assert all(one == "Item" or one.startswith("_") for one in imported)


def test_importing_every_source_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom fettle import plugins\n"
        f"for name in {NAMES}: plugins.resolve('sources', name, where='x')\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'pyarrow', 'numpy', 'PIL'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_it_yields_items_that_ingest_can_use(given: Given) -> None:
    items = given.read()
    assert len({item.row for item in items}) == len(items)
    assert len({item.label for item in items}) >= 2
    for item in items:
        assert item.label
        assert item.split in (None, *SPLITS)
        assert not item.row.startswith("/")
        assert str(Path.home()) not in item.row
        assert item.error is None


def test_every_image_decodes(given: Given) -> None:
    for item in given.read()[:50]:
        seen = look(item.encoded)
        assert seen.error is None
        assert min(seen.width or 0, seen.height or 0) >= 8


def test_reading_twice_gives_the_same_in_the_same_order(given: Given) -> None:
    assert given.read() == given.read()


def test_the_fingerprint_counts_the_images_and_stays_the_same(given: Given) -> None:
    first = given.fingerprint()
    assert sorted(first) == ["digest", "images"]
    assert len(first["digest"]) == 64
    assert int(first["digest"], 16) >= 0
    assert first["images"] == len(given.read())
    assert given.fingerprint() == first


def test_no_two_sources_share_a_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = tiny_photos.fill(tmp_path / "photos", ["cat", "dog"], 2)
    places = {"image_folder": photos}
    prints = {
        load(name).fingerprint(load(name).Params(), places.get(name))["digest"] for name in NAMES
    }
    assert len(prints) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_something_else_is_refused_with_a_next_step(name: str, tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    source = load(name)
    with pytest.raises(DataError) as caught:
        list(source.read(source.Params(), tmp_path / "stranger"))
    assert caught.value.fix
    assert str(tmp_path / "stranger") in str(caught.value)
