"""Fashion-MNIST from IDX files of a few images; the real ones are known by their digests."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fettle.data import dataset_download
from fettle.data.sources import fashion_mnist
from fettle.errors import DataError

COUNTS = {"train": 12, "t10k": 5}


def pixels(prefix: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    shape = (COUNTS[prefix], 28, 28)
    return np.random.default_rng(len(prefix)).integers(0, 256, shape, dtype=np.uint8)


def contents() -> dict[str, bytes]:
    found = {}
    for prefix, count in COUNTS.items():
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28) + pixels(prefix).tobytes()
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(at % 10 for at in range(count))
        found[f"{prefix}-images-idx3-ubyte"] = images
        found[f"{prefix}-labels-idx1-ubyte"] = labels
    return found


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents().items()}
    monkeypatch.setattr(fashion_mnist, "FILES", digests)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "idx"
    place.mkdir()
    for name, data in contents().items():
        (place / f"{name}.gz").write_bytes(gzip.compress(data))
    return place


def test_a_local_folder_is_read(folder: Path) -> None:
    items = list(fashion_mnist.read(fashion_mnist.Params(), folder))
    assert [item.split for item in items] == [None] * 12 + ["test"] * 5
    assert items[0].row == "fashion_mnist/train/00000"
    assert items[12].row == "fashion_mnist/test/00000"
    assert [item.label for item in items[:3]] == ["T-shirt/top", "Trouser", "Pullover"]
    last = np.asarray(Image.open(io.BytesIO(items[-1].encoded)))
    assert np.array_equal(last, pixels("t10k")[-1])


def test_only_the_training_images_are_limited(folder: Path) -> None:
    items = list(fashion_mnist.read(fashion_mnist.Params(train_images_max=4), folder))
    assert [item.split for item in items] == [None] * 4 + ["test"] * 5
    assert items[3].row == "fashion_mnist/train/00003"


def test_without_a_folder_the_files_are_fetched_into_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(url: str) -> bytes:
        asked.append(url)
        return contents()[url.rpartition("/")[2].removesuffix(".gz")]

    monkeypatch.setattr(dataset_download, "download_bytes", download)
    options = fashion_mnist.Params(urls=["https://mirror.invalid/fashion"])
    assert len(list(fashion_mnist.read(options, None))) == 17
    assert asked == [f"https://mirror.invalid/fashion/{name}.gz" for name in contents()]
    assert sorted(p.name for p in cache.iterdir()) == ["fashion_mnist"]
    list(fashion_mnist.read(options, None))
    assert len(asked) == 4


def test_the_fingerprint_fetches_nothing(cache: Path) -> None:
    found = fashion_mnist.fingerprint(fashion_mnist.Params(), None)
    assert found["images"] == 70_000
    assert not cache.exists()


def test_a_folder_that_lacks_a_file_is_refused(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        fashion_mnist.fingerprint(fashion_mnist.Params(), folder)
    assert str(caught.value) == (
        f"{folder} holds no Fashion-MNIST: got no t10k-labels-idx1-ubyte; the four IDX files lie "
        "there, gzipped (.gz) or plain. Fix: name the right folder, or none to have them fetched."
    )


def test_a_folder_with_other_content_is_refused(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"MNIST, not Fashion-MNIST")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is not the known file"):
        list(fashion_mnist.read(fashion_mnist.Params(), folder))
