"""Image encoding: a path, bytes, a Pillow image, an array or a tensor as the bytes of a file.

What is a file already stays as it is; pixels become a PNG, which loses nothing. Arrays are [H, W],
[H, W, C] or [C, H, W] with C of 1 or 3; uint8, or floats from 0 to 1.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8 | np.float32 | np.float64]
_CHANNELS = (1, 3)
_ROUNDING = 1e-6  # what a float in [0, 1] may be off by
# Modes that PNG holds; others are brought to RGB, as preprocessing would.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}


def encode(image: object, *, name: str) -> bytes:
    """Return the bytes of an image file; `name` is what an error calls the image.

    Raises DataError for what is no image, and for a file that cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        try:
            return Path(image).expanduser().read_bytes()
        except OSError as err:
            raise DataError(
                f"{name} cannot be read", got=f"'{image}': {err.strerror}", fix="name a file"
            ) from err
    if hasattr(image, "save") and hasattr(image, "mode"):
        return _png(image)  # type: ignore[arg-type]  # Pillow's image, without importing Pillow
    return _png(_from_array(_as_array(image, name), name))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(
        file, "PNG", compress_level=1
    )
    return file.getvalue()


def _as_array(image: object, name: str) -> Pixels:
    if hasattr(image, "detach"):  # a torch tensor, without importing torch
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return image
    raise DataError(
        f"{name} is no image",
        got=type(image).__name__,
        rule="an image is a path, the bytes of a file, a Pillow image, an array or a tensor",
        fix="give one of these",
    )


def _from_array(array: Pixels, name: str) -> Image.Image:
    from PIL import Image

    if array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[2] not in _CHANNELS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise DataError(
            f"{name} has the shape of no image",
            got=str(list(array.shape)),
            rule="it is [H, W], [H, W, C] or [C, H, W] with C of 1 or 3",
            fix="give one image at a time; a list of arrays is a list of images",
        )
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING or low != low:
            raise DataError(
                f"{name} has values that are no brightness",
                got=f"{low:g} to {high:g}",
                rule="floats lie between 0 and 1; other images are uint8",
                fix="leave out the normalisation: the release does that itself",
            )
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(
            f"{name} has values of a type that no image has",
            got=str(array.dtype),
            rule="an array is uint8, or floats between 0 and 1",
            fix="scale it to 0 to 255 and convert it: (array * 255 / array.max()).astype('uint8')",
        )
    return Image.fromarray(np.ascontiguousarray(array))
