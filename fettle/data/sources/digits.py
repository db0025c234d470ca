"""The 1,797 real handwritten digits that ship inside scikit-learn: 8x8 grey, no download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test
part). The grey levels 0 to 16 are scaled to 0 to 255.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from fettle.data.sources import Item
from fettle.errors import DataError
from fettle.params import Strict

IMAGES = 1797
# sha256 of the pixels (uint8 [1797, 8, 8], levels 0 to 16) followed by the labels (uint8 [1797])
DIGEST = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


class Params(Strict):
    """Digits has no options."""


def licence(options: Params, location: Path | None) -> str:
    """State the licence: of UCI's page of the data set (doi 10.24432/C50P49)."""
    del options, location
    return "CC-BY-4.0"


def fingerprint(options: Params, location: Path | None) -> dict[str, str | int]:
    """Name the content without loading it: `read` checks that this is what it gives.

    Raises DataError when a location is given: these digits are embedded.
    """
    del options
    if location is not None:
        raise DataError(
            "the source digits brings its own images",
            got=f"data at {location}",
            rule="it reads no folder",
            fix="set ingest.source: image_folder in params.yaml, or remove `data` from "
            "inputs/local.yaml",
        )
    return {"digest": DIGEST, "images": IMAGES}


def read(options: Params, location: Path | None) -> Iterator[Item]:
    """Yield the digits as 8x8 grey PNG.

    Raises DataError when the installed scikit-learn ships other digits.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    from fettle.data.png_encoding import grey_png

    fingerprint(options, location)
    bunch = load_digits()
    levels = np.asarray(bunch.images, dtype=np.uint8)
    labels = np.asarray(bunch.target, dtype=np.uint8)
    digest = hashlib.sha256(levels.tobytes() + labels.tobytes()).hexdigest()
    if digest != DIGEST:
        raise DataError(
            "the digits of the installed scikit-learn are not the known ones",
            got=f"sha256 {digest[:12]}",
            rule=f"it must be {DIGEST[:12]}",
            fix="install scikit-learn from requirements.lock",
        )
    pixels = np.rint(levels * (255 / 16)).astype(np.uint8)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        yield Item(f"digits/{index:05d}", str(label), None, None, grey_png(image))
