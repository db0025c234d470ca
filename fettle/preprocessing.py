"""Turn any image into the model's input: one code for training, measuring and serving.

Two steps, so that a data set fits in memory as bytes: `pixels` decodes, converts and resizes to
uint8 [C, S, S]; `normalise` makes float32 [N, C, S, S] of a batch. Needs numpy and Pillow only;
a release carries this file, so no skew between training and serving is possible.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Fit = Literal["stretch", "crop", "pad"]

# What ingest lets through (fettle/data/image_inspection.py), so that nothing it accepts fails here.
# Pillow would also try formats that start other programs: EPS runs Ghostscript. JPEG includes MPO
# (phone photos).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
PIXELS_MAX = 89_478_485  # Pillow's bound for a decompression bomb: 256 MiB of RGB samples
# JPEG can be decoded small at once; all else whole, at 4 bytes a pixel, twice where it is turned or
# transparent: 128 MiB at most. 4096 x 4096, or a page of A4 at 400 dots an inch.
WHOLE_PIXELS_MAX = 2**24
DRAFT_ABOVE = 2**20  # pixels; a smaller JPEG is decoded whole
SPARE = 2  # a JPEG is decoded at no less than so many times the model's side
STRIP_ROWS = 64  # of a transparent image, laid on white at once


class UnreadableImage(ValueError):
    """The bytes are no image that Pillow can decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How an image becomes an input.

    `size_px` is its side, `channels` 1 (grey) or 3 (RGB); `mean` and `std` are on the 0 to 1 scale,
    one number or one a channel. `fit` says what becomes of an image that is not square: `crop`
    scales its shorter side and takes the centre, `pad` scales its longer side and fills with
    `mean`, `stretch` changes its aspect ratio.
    """

    size_px: int
    channels: int
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    fit: Fit = "stretch"  # what a release without this key was made with

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form that a release carries as preprocess.json."""
        return asdict(self)

    def pixels(self, encoded: bytes) -> Pixels:
        """Decode, turn upright by its EXIF tag, convert and resize: uint8 [C, S, S].

        Raises UnreadableImage when the bytes cannot be decoded, are of a format that is not
        taken, are `too_large`, or have samples whose scale cannot be relied on.
        """
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                if (reason := too_large(image)) is not None:
                    raise UnreadableImage(reason)
                packing = sample_packing(image)
                if image.width * image.height > DRAFT_ABOVE:  # of a JPEG alone: 1/2, 1/4 or 1/8
                    image.draft(None, (SPARE * self.size_px, SPARE * self.size_px))
                image.load()
                if (reason := scale_unknown(image, packing)) is not None:
                    raise UnreadableImage(reason)
                upright: Image.Image = image
                ImageOps.exif_transpose(upright, in_place=True)  # a copy would double a large one
        except (MemoryError, UnreadableImage):
            raise
        except Exception as err:  # seen in 12,000 damaged files: OSError, ValueError, SyntaxError
            # and DecompressionBombError; Pillow promises only the first
            raise UnreadableImage(f"{type(err).__name__}: {_without_address(str(err))}") from err
        return self.from_image(upright)

    def from_image(self, image: Image.Image) -> Pixels:
        """Convert and resize a decoded image: uint8 [C, S, S]."""
        mode = "L" if self.channels == 1 else "RGB"
        image = _opaque(_eight_bit(image), mode)
        image = image if image.mode == mode else image.convert(mode)
        if image.size != (self.size_px, self.size_px):
            image = self._resize(image)
        array = np.asarray(image, dtype=np.uint8)
        return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    def _resize(self, image: Image.Image) -> Image.Image:
        """Bring an image to the model's side as `fit` says."""
        side, (width, height) = self.size_px, image.size
        bilinear = Image.Resampling.BILINEAR  # Pillow's widens when shrinking: it does not alias
        if self.fit == "pad":
            scale = side / max(width, height)
            inside = max(1, round(width * scale)), max(1, round(height * scale))
            grey = np.broadcast_to(np.rint(255 * np.asarray(self.mean)), self.channels)
            whole = Image.new(image.mode, (side, side), tuple(int(level) for level in grey))
            whole.paste(
                image.resize(inside, bilinear), ((side - inside[0]) // 2, (side - inside[1]) // 2)
            )
            return whole
        least = min(width, height)
        across, down = (width - least) / 2, (height - least) / 2
        centre = (across, down, across + least, down + least)
        return image.resize((side, side), bilinear, box=centre if self.fit == "crop" else None)

    def batch(self, encoded: list[bytes]) -> Pixels:
        """Decode a list of images: uint8 [N, C, S, S]."""
        shape = (len(encoded), self.channels, self.size_px, self.size_px)
        out = np.empty(shape, dtype=np.uint8)
        for index, one in enumerate(encoded):
            out[index] = self.pixels(one)
        return out

    def normalise(self, pixels: Pixels) -> Floats:
        """Scale uint8 [N, C, S, S] to float32 of the same shape: (x / 255 - mean) / std."""
        mean, std = _by_channel(self.mean), _by_channel(self.std)
        scale, offset = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
        return np.asarray(pixels * scale - offset, dtype=np.float32)

    @property
    def mean_std(self) -> float:
        """Standard deviation over the channels: what turns full-scale shares into input units."""
        return float(np.mean(self.std))


def _by_channel(value: float | tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Shape a number, or one a channel, so that it spreads over [N, C, S, S]."""
    levels = np.asarray(value, dtype=np.float64)
    return levels if levels.ndim == 0 else levels.reshape(-1, 1, 1)


def brightness(pixels: Pixels) -> list[float]:
    """Return the mean brightness of each image of uint8 [N, C, S, S], 0 to 1.

    The one measure of an input that is watched for drift: exposure, inversion, blank frames.
    """
    flat = pixels.reshape(len(pixels), -1)
    # whole sums: the same means as numpy's own at a third of their time
    return [int(total) / flat.shape[1] / 255 for total in flat.sum(axis=1, dtype=np.int64)]


def sample_packing(image: Image.Image) -> str:
    """Return how Pillow unpacks the samples, e.g. "RGB;16B"; ask before the image is loaded."""
    tiles = getattr(image, "tile", [])
    return str(tiles[0][3]) if tiles and image.format in ("PNG", "TIFF") else ""


def too_large(image: Image.Image) -> str | None:
    """Say why an image is not decoded: it would take too much memory; None where it would not.

    A few hundred kilobytes of PNG may claim gigabytes.
    """
    drafted = image.format in ("JPEG", "MPO")
    most = PIXELS_MAX if drafted else WHOLE_PIXELS_MAX
    if image.width * image.height <= most:
        return None
    what = "" if drafted else " in this format; as JPEG more are"
    return (
        f"too large to decode: {image.width} x {image.height} is above {most:,} pixels, "
        f"the most that are taken{what}"
    )


def scale_unknown(image: Image.Image, packing: str) -> str | None:
    """Say why samples of more than 8 bits have no scale that can be relied on; None if they have.

    Cameras, microscopes and X-rays store 12 bits in 16: read as 16, such a picture is black.
    """
    if image.mode not in ("I", "F") and ";16" not in packing and not image.mode.startswith("I;"):
        return None
    if image.mode.startswith(("I", "F")):
        samples = np.asarray(image)
        low, high = float(samples.min()), float(samples.max())
        if image.mode == "F":
            if 0 <= low <= high <= 1:
                return None
            return f"floating-point samples of {low:g} to {high:g}, where 0 to 1 is taken"
    else:  # Pillow keeps the upper 8 of colour's 16 bits; alpha has a scale of its own
        bands = image.split()[: 3 if "RGB" in packing else 1]
        extrema = [cast(tuple[int, int], band.getextrema()) for band in bands]
        low, high = 256.0 * min(e[0] for e in extrema), 256.0 * max(e[1] for e in extrema)
    if low < 0 or high > 65_535:
        return f"integer samples of {low:.0f} to {high:.0f}, where 0 to 65,535 is taken"
    if low < high < 4_096:
        return (
            f"16-bit samples that end at {high:,.0f} of 65,535: 12 bits or fewer, stored in 16. "
            "Stretch them to 65,535 (12 bits: times 16), or save them as 8 bits"
        )
    return None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring the modes that Pillow would clip, or cannot convert, to 8-bit grey.

    "I" is 32-bit but holds 16-bit samples in every format taken here; "F" is taken as 0 to 1; of
    "LAB" the lightness is kept.
    """
    if image.mode == "LAB":
        return image.getchannel(0)
    if not image.mode.startswith(("I", "F")):
        return image
    samples = np.asarray(image)
    narrow = samples * np.float32(255) if image.mode == "F" else samples >> 8
    return Image.fromarray(narrow.clip(0, 255).astype(np.uint8))


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Lay a transparent image on white, in `mode`: what its transparent pixels hide is arbitrary.

    In strips: each step of it would double what a large image takes.
    """
    if not image.has_transparency_data:
        return image
    opaque = Image.new(mode, image.size)
    for top in range(0, image.height, STRIP_ROWS):
        part = (0, top, image.width, min(top + STRIP_ROWS, image.height))
        layered = image.crop(part).convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        opaque.paste(Image.alpha_composite(white, layered).convert(mode), part)
    return opaque


def _without_address(text: str) -> str:
    """Drop the object's address that Pillow prints: it says nothing and differs in every run."""
    return text.replace("cannot identify image file", "no image of a known format").partition(" <")[
        0
    ]
