"""Image request: the images of a body, through the same preprocessing as training.

    application/json          one array of numbers 0 to 255: [H, W] or [H, W, C] is one image,
                              [N, H, W] or [N, H, W, C] a batch; C is 1 or 3. A last axis of 1 or
                              3 in a three-dimensional array means channels, not width. What looks
                              like another layout or scale is refused by name: 2 or 4 channels,
                              channels first, fractions of 0 to 1 (`_refuse_layout`, `_as_array`).
    application/octet-stream  with `X-Shape: 32,32,1`: raw uint8 of that shape, row by row, in any
                              of the shapes above; without it: one encoded image
    image/*                   one encoded image (JPEG, PNG, WebP, BMP, GIF, TIFF)
    multipart/form-data       its file parts, each one encoded image (split by the server)

Height and width are free: every image is resized as in training. Whatever is wrong becomes a
BadRequest with a reason that the client may read.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from itertools import chain

import numpy as np
import numpy.typing as npt
from PIL import Image

from fettle.preprocessing import FORMATS, PIXELS_MAX, Pixels, Preprocess, UnreadableImage

IMAGES_MAX = 256  # one request holds the worker for about as many single inferences
JSON_TYPE = "application/json"
RAW_TYPE = "application/octet-stream"
CHANNELS = (1, 3)
DEPTH_MAX = 4  # [N, H, W, C]
SHAPE = re.compile(r"[1-9][0-9]{0,8}(?:, ?[1-9][0-9]{0,8}){1,3}")
# What is decoded without a thread: each was measured to take at most 1 ms, and a thread costs 0.1
QUICK_JSON_BYTES, QUICK_RAW_BYTES = 8 * 2**10, 256 * 2**10


class BadRequest(ValueError):
    """The request is wrong: HTTP `status` and a reason for the client."""

    def __init__(self, reason: str, *, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def media_type(content_type: str) -> str:
    """Return "image/jpeg" of "Image/JPEG; q=1"."""
    return content_type.partition(";")[0].strip().lower()


def is_quick(content_type: str, shape: str | None, size_bytes: int) -> bool:
    """Tell whether a body is decoded in about a millisecond, whatever it holds."""
    kind = media_type(content_type)
    if kind == JSON_TYPE:
        return size_bytes <= QUICK_JSON_BYTES
    return kind == RAW_TYPE and shape is not None and size_bytes <= QUICK_RAW_BYTES


def read(
    body: bytes, content_type: str, preprocess: Preprocess, *, shape: str | None = None
) -> Pixels:
    """Decode a JSON, a raw or an image body: uint8 [N, C, S, S]; `shape` is the header X-Shape.

    Raises BadRequest.
    """
    kind = media_type(content_type)
    if kind == JSON_TYPE:
        return from_json(body, preprocess)
    if kind == RAW_TYPE and shape is not None:
        return from_raw(body, shape, preprocess)
    if kind == RAW_TYPE or kind.startswith("image/"):
        return from_files([body], preprocess)
    raise BadRequest(
        f"content type {kind or 'absent'!r} is not taken: send an array as {JSON_TYPE}, "
        "or an image file as image/jpeg, image/png or multipart/form-data",
        status=415,
    )


def from_files(files: list[bytes], preprocess: Preprocess) -> Pixels:
    """Decode encoded images: uint8 [N, C, S, S]; raises BadRequest, naming the bad one."""
    _check_count(len(files))
    _check_area(files)
    images = []
    for index, encoded in enumerate(files):
        try:
            images.append(preprocess.pixels(encoded))
        except UnreadableImage as err:
            where = f"image {index} of {len(files)}" if len(files) > 1 else "the image"
            raise BadRequest(f"{where} cannot be read: {err}") from err
    return np.stack(images)


def from_json(body: bytes, preprocess: Preprocess) -> Pixels:
    """Parse a JSON array: uint8 [N, C, S, S]; raises BadRequest."""
    try:
        # NaN and Infinity are no JSON, though Python reads them: they are refused by name below
        doc = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise BadRequest(f"the body is no JSON: {err}") from err
    # numpy would read booleans as numbers; "true" and "false" have an e, as 1e2 has
    samples = None if b"e" in body else _samples(doc)
    if samples is None:
        samples = np.rint(_as_array(doc)).astype(np.uint8)
    return _as_pixels(samples, preprocess)


def from_raw(body: bytes, shape: str, preprocess: Preprocess) -> Pixels:
    """Take uint8 samples as they are: uint8 [N, C, S, S]; raises BadRequest."""
    if not SHAPE.fullmatch(shape):
        raise BadRequest(f"X-Shape is not taken: {shape[:80]!r}; it is two to four sizes: 32,32,1")
    sizes = [int(size) for size in shape.split(",")]
    wanted = math.prod(sizes)
    if wanted != len(body):
        text = f"the body has {len(body)} bytes, X-Shape {shape} needs {wanted}"
        if len(body) in (2 * wanted, 4 * wanted, 8 * wanted):
            text += f": {len(body) // wanted} bytes a sample, where uint8 of 0 to 255 is taken"
        raise BadRequest(text)
    return _as_pixels(np.frombuffer(body, dtype=np.uint8).reshape(sizes), preprocess)


def _as_pixels(array: npt.NDArray[np.uint8], preprocess: Preprocess) -> Pixels:
    """Bring an array of any accepted shape to the model's: uint8 [N, C, S, S]."""
    images = _as_images(array, preprocess)
    _check_count(len(images))
    size = images.shape[1] * images.shape[2]
    if size > PIXELS_MAX:
        raise BadRequest(f"an image has {size} pixels, more than {PIXELS_MAX}")
    if images.shape[1:] == (preprocess.size_px, preprocess.size_px, preprocess.channels):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))  # nothing to convert or resize
    modes = [image[:, :, 0] if image.shape[2] == 1 else image for image in images]
    return np.stack([preprocess.from_image(Image.fromarray(image)) for image in modes])


def _samples(doc: object) -> npt.NDArray[np.uint8] | None:
    """Take an even array of integers 0 to 255 at a fifth of numpy's cost; None for any other."""
    if not isinstance(doc, list):
        return None
    shape: list[int] = []
    lists = [doc]
    while len(shape) < DEPTH_MAX:
        if any(type(row) is not list or not row or len(row) != len(lists[0]) for row in lists):
            return None
        shape.append(len(lists[0]))
        if type(lists[0][0]) is not list:
            try:
                # bytes() refuses whatever is no integer of a byte; a bare number never gets here
                data = b"".join(map(bytes, lists))
            except (TypeError, ValueError, OverflowError):
                return None
            return np.frombuffer(data, dtype=np.uint8).reshape(shape)
        lists = list(chain.from_iterable(lists))
    return None


def _as_array(doc: object) -> npt.NDArray[np.float64]:
    if not isinstance(doc, list):
        raise BadRequest(f"the JSON must be an array of numbers, not {_json_name(doc)}")
    if (depth := _depth(doc)) > DEPTH_MAX:
        raise BadRequest(f"the arrays are nested {depth} deep, at most {DEPTH_MAX} are taken")
    try:
        array = np.asarray(doc)
    except (ValueError, OverflowError) as err:
        raise BadRequest("the arrays differ in length: every row needs the same") from err
    if array.size == 0:
        raise BadRequest(f"the array is empty: shape {list(array.shape)}")
    if array.dtype.kind not in "iuf":
        raise BadRequest("the array must hold numbers only, 0 to 255")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise BadRequest("the array holds a value that is not finite (NaN or Infinity)")
    low, high = float(numbers.min()), float(numbers.max())
    if low < 0 or high > 255:
        raise BadRequest(f"the values must lie in 0 to 255, they span {low:g} to {high:g}")
    # whole numbers may well be a dark picture; fractions up to 1 are what scaling leaves
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise BadRequest(
            f"the values span {low:g} to {high:g}: fractions of 0 to 1, where 0 to 255 is taken. "
            "Multiply them by 255"
        )
    return numbers


def _depth(doc: object) -> int:
    """Count how deep the first elements are nested; numpy refuses beyond 64 in other words."""
    depth = 0
    while isinstance(doc, list):
        depth, doc = depth + 1, doc[0] if doc else None
    return depth


def _as_images(pixels: npt.NDArray[np.uint8], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Bring any accepted shape to uint8 [N, H, W, C]."""
    shape = list(pixels.shape)
    if pixels.ndim == 2:
        return pixels[None, :, :, None]
    if pixels.ndim in (3, 4):
        _refuse_layout(shape, preprocess)
    if pixels.ndim == 3:
        return pixels[None] if shape[2] in CHANNELS else pixels[:, :, :, None]
    if pixels.ndim == 4 and shape[3] in CHANNELS:
        return pixels
    raise BadRequest(
        f"shape {shape} is not taken: an image is [H, W] or [H, W, C], a batch [N, H, W] or "
        "[N, H, W, C], with C 1 or 3"
    )


def _refuse_layout(shape: list[int], preprocess: Preprocess) -> None:
    """Refuse what would be read as other images than were meant.

    [H, W, 4] is no batch of grey images 4 wide, and [3, H, W] for a model of RGB no batch of three
    grey ones. A batch of images of the model's own size stays one, and so does [N, H, W] for a
    model of grey. Raises BadRequest.
    """
    *_, height, last = shape
    if last in CHANNELS:
        return
    own = len(shape) == 3 and shape[1:] == [preprocess.size_px, preprocess.size_px]
    if last == 4 or (last == 2 and len(shape) == 3 and height > 1):
        if own:
            return
        kind = "RGBA" if last == 4 else "grey and alpha"
        raise BadRequest(
            f"shape {shape} has {last} channels ({kind}), where C is 1 or 3: leave the alpha out"
        )
    first = shape[-3]
    wide = min(height, last) > 2
    if len(shape) == 4 and first in (1, 2, 3, 4) and wide:
        raise BadRequest(
            f"shape {shape} is channels first: it is taken as [N, H, W, C], channels last"
        )
    if len(shape) == 3 and preprocess.channels == 3 and first in (3, 4) and wide:
        raise BadRequest(
            f"shape {shape} is channels first: an image is taken as [H, W, C], channels last; a "
            f"batch of {first} grey images as [N, H, W, 1]"
        )


def _check_count(count: int) -> None:
    if count == 0:
        raise BadRequest("the request holds no image")
    if count > IMAGES_MAX:
        raise BadRequest(f"the request holds {count} images, at most {IMAGES_MAX} are taken")


def _check_area(files: list[bytes]) -> None:
    """Refuse images that together claim more pixels than one may: decoding takes 10 ns a pixel.

    Only their heads are read. One that cannot be read is refused when it is decoded.
    """
    area = 0
    for encoded in files if len(files) > 1 else []:
        # Pillow promises no types: see preprocessing.py
        with (
            contextlib.suppress(Exception),
            Image.open(io.BytesIO(encoded), formats=FORMATS) as image,
        ):
            area += image.width * image.height
    if area > PIXELS_MAX:
        raise BadRequest(f"the images have {area} pixels together, more than {PIXELS_MAX}")


def _json_name(doc: object) -> str:
    names = {dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(doc), "a number")
