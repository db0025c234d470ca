"""Look into an encoded image once: what it is, how large, how bright, or why it is unreadable.

Untrusted bytes come in here, so this is a border: nothing that Pillow raises gets out.
"""

from __future__ import annotations

import codecs
import io
import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fettle.preprocessing import (
    FORMATS,
    PIXELS_MAX,
    sample_packing,
    scale_unknown,
    too_large,
)

# A photo of 12 megapixels takes 48 MiB here: of such, one is decoded at a time, by any thread.
LARGE_PIXELS = 2**23
_ONE_LARGE = threading.Lock()
FULL_SCALE = {"I": 65_535.0, "F": 1.0}  # I;16 as I; every other mode has 8 bits a sample


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one image is.

    `low` and `high` are its darkest and brightest grey value as a share of full scale (0 to 1,
    beyond for the modes I and F, whose scale nothing states). All but `error` are None when
    unreadable.
    """

    format: str | None = None
    mode: str | None = None
    width: int | None = None
    height: int | None = None
    low: float | None = None
    high: float | None = None
    error: str | None = None


def look(encoded: bytes) -> ImageFacts:
    """Decode an image whole and describe it, or say why it cannot be decoded; never raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that it then reads well
        return look_aloud(encoded)


def look_aloud(encoded: bytes) -> ImageFacts:
    """As `look`, with Pillow's warnings as the caller has set them, so that threads may call it:
    the filter is the whole process's, and a thread that sets it back sets it for all.
    """
    if not encoded:
        return ImageFacts(error="an empty file (0 bytes)")
    try:
        return _decode(encoded)
    except UnidentifiedImageError:
        return ImageFacts(error=_stranger(encoded))
    except Image.DecompressionBombError:
        return ImageFacts(error=f"too large to decode: above {2 * PIXELS_MAX:,} pixels")
    except Exception as err:  # a damaged file makes Pillow raise nearly anything (struct, zlib, …)
        return ImageFacts(error=f"cannot be decoded: {_words(err)}")


def _decode(encoded: bytes) -> ImageFacts:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        width, height = image.size
        if (reason := too_large(image)) is not None:
            return ImageFacts(error=reason)
        with _ONE_LARGE if width * height > LARGE_PIXELS else nullcontext():
            packing = sample_packing(image)
            image.load()
            kind, mode = image.format, image.mode
            if (reason := scale_unknown(image, packing)) is not None:
                return ImageFacts(error=reason)
            low, high = _brightness(image)
            # preprocessing turns by the EXIF tag: a tag that breaks it must show here
            ImageOps.exif_transpose(image, in_place=True)
    return ImageFacts(kind, mode, width, height, low, high)


def _brightness(image: Image.Image) -> tuple[float, float]:
    """Return the lowest and highest grey value, transparent pixels laid on white.

    A plain red image has both equal.
    """
    if image.mode.startswith(("I", "F")):
        samples = np.asarray(image, dtype=np.float64)
        scale = FULL_SCALE[image.mode[0]]
        return float(samples.min()) / scale, float(samples.max()) / scale
    if image.has_transparency_data:  # as preprocessing does: what is hidden does not count
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    if image.mode == "LAB":  # Pillow has no conversion to grey; its first band is the lightness
        image = image.getchannel(0)
    elif image.mode != "L":
        image = image.convert("L")
    low, high = cast(tuple[int, int], image.getextrema())  # of one band
    return low / 255, high / 255


# First bytes of what a folder of pictures may also hold, and what to do about it.
LFS = b"version https://git-lfs.github.com/spec/"
STRANGERS = {
    b"ftyphei": "an HEIC picture",
    b"ftyphev": "an HEIC picture",
    b"ftypmif": "an HEIF picture",
    b"ftypmsf": "an HEIF picture",
    b"ftypavi": "an AVIF picture",
    b"ftyp": "a film or picture in an ISO media file",
    b"JXL \r\n": "a JPEG XL picture",
    b"\xff\n": "a JPEG XL picture",
    b"jP  \r\n": "a JPEG 2000 picture",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
}


def _stranger(encoded: bytes) -> str:
    """Say what bytes that are no image look like."""
    kinds = ", ".join(FORMATS)
    if encoded.startswith(LFS):
        return "a Git LFS pointer, not the image: `git lfs pull` fetches it"
    for first, what in STRANGERS.items():
        if encoded.startswith(first) or encoded[4 : 4 + len(first)] == first:
            return f"{what}, which is not taken: convert it ({kinds})"
    try:  # an incremental decoder does not mind that the 512 bytes end within a letter
        text = codecs.getincrementaldecoder("utf-8")().decode(encoded[:512])
    except UnicodeDecodeError:
        return f"no image of a known format ({kinds})"
    if all(letter.isprintable() or letter in "\t\r\n" for letter in text):
        return "no image but text"
    return f"no image of a known format ({kinds})"


def _words(err: Exception) -> str:
    """Return an error's text without the address in memory of the stream."""
    text = re.sub(r" ?<[^<>]* at 0x[0-9a-fA-F]+>", "", str(err)).strip()
    return text or type(err).__name__
