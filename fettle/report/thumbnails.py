"""Thumbnails of the data: samples of each class, and what the shipped file gets wrong."""

from __future__ import annotations

import base64
import io
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from fettle.data import image_table

THUMBNAIL_PX = 96  # shown at 64 CSS pixels; the rest is for screens of high density
AS_FOUND_BYTES = 4_000  # below this re-encoding saves nothing
TINY_PX = 48  # enlarged without smoothing, so that one sees the pixels the model sees
SAMPLES = 8
CLASSES = 20
MISTAKES = 24
PREDICTIONS = "predictions.parquet"
COLUMNS = ["row", "label", "predicted", "probability", "float_predicted"]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image as a data URI; `tiny` when it is enlarged on the page."""

    uri: str
    tiny: bool


@dataclass(frozen=True, slots=True)
class Mistake:
    """A test image that the shipped file gets wrong; `flipped` when the float model was right."""

    image: Thumbnail | None
    row: str
    label: str
    predicted: str
    probability: float
    flipped: bool


def thumbnail(encoded: bytes) -> Thumbnail | None:
    """Shrink an image to THUMBNAIL_PX and encode it for the page; None when unreadable."""
    try:
        with Image.open(io.BytesIO(encoded)) as found, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; ingest judged it
            kind, plain = found.format, found.mode in ("L", "RGB")
            small = max(found.size) <= THUMBNAIL_PX and len(encoded) <= AS_FOUND_BYTES
            tiny = max(found.size) < TINY_PX
            if kind in ("PNG", "JPEG") and plain and small:
                return Thumbnail(_uri(encoded, kind), tiny)
            image = ImageOps.exif_transpose(found)
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            if image.mode.startswith("I"):
                image = image.point(lambda sample: sample / 256)
            image = image.convert("L" if image.mode in ("L", "1", "I", "I;16") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    buffer = io.BytesIO()
    if tiny:
        image.save(buffer, "PNG")
        return Thumbnail(_uri(buffer.getvalue(), "PNG"), tiny)
    image.save(buffer, "JPEG", quality=80)
    return Thumbnail(_uri(buffer.getvalue(), "JPEG"), tiny)


def _uri(encoded: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encoded).decode()}"


def samples(ingest: Path, validate: Path) -> dict[str, list[Thumbnail]]:
    """Take the first SAMPLES training images of each class (of the first CLASSES classes)."""
    table = pq.read_table(ingest / image_table.IMAGES, columns=["row", "label", "split"])
    passed = pq.read_table(validate / image_table.ROWS, columns=["row"])["row"]
    table = table.filter(
        pc.and_(pc.is_in(table["row"], value_set=passed), pc.equal(table["split"], "train"))
    )
    chosen: dict[str, list[str]] = defaultdict(list)
    for row, label in zip(table["row"].to_pylist(), table["label"].to_pylist(), strict=True):
        if len(chosen[label]) < SAMPLES:
            chosen[label].append(row)
    kept = {label: chosen[label] for label in sorted(chosen)[:CLASSES]}
    images = _thumbnails(ingest, [row for rows in kept.values() for row in rows])
    return {label: [images[r] for r in rows if r in images] for label, rows in kept.items()}


def _thumbnails(ingest: Path, rows: Sequence[str]) -> dict[str, Thumbnail]:
    found = image_table.read_images(ingest / image_table.IMAGES, rows)
    made = ((row, thumbnail(encoded)) for row, encoded in found.items())
    return {row: image for row, image in made if image is not None}


def counts(ingest: Path, validate: Path) -> dict[str, dict[str, int]]:
    """Count what validation let through: {class: {split: images}}."""
    table = pq.read_table(ingest / image_table.IMAGES, columns=["row", "label", "split"])
    passed = pq.read_table(validate / image_table.ROWS, columns=["row"])["row"]
    kept = table.filter(pc.is_in(table["row"], value_set=passed))
    groups = kept.group_by(["label", "split"]).aggregate([("row", "count")]).to_pylist()
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for group in groups:
        found[group["label"]][group["split"]] = group["row_count"]
    return {label: found[label] for label in sorted(found)}


def quarantine(validate: Path, most: int) -> list[Mapping[str, str]]:
    """Read the first `most` quarantined rows: {row, rule, reason}."""
    table = pq.read_table(validate / image_table.QUARANTINE).slice(0, most)
    return list(table.to_pylist())


@dataclass(frozen=True, slots=True)
class Wrong:
    """A wrong answer on test, before its image is read."""

    row: str
    label: str
    predicted: str
    probability: float
    float_predicted: str

    @property
    def flipped(self) -> bool:
        """Tell whether the float model answered right."""
        return self.float_predicted == self.label


def mistakes(verdict: Path) -> tuple[list[Wrong], int]:
    """Read the wrong answers, flipped first, then the surest; and how many images there are."""
    table = pq.read_table(verdict / PREDICTIONS, columns=COLUMNS)
    rows = table.filter(pc.not_equal(table["label"], table["predicted"])).to_pylist()
    wrong = [
        Wrong(
            row=r["row"],
            label=r["label"],
            predicted=r["predicted"],
            probability=r["probability"],
            float_predicted=r["float_predicted"],
        )
        for r in rows
    ]
    wrong.sort(key=lambda one: (not one.flipped, -one.probability, one.row))
    return wrong, table.num_rows


def show(wrong: Sequence[Wrong], ingest: Path) -> list[Mistake]:
    """Add each wrong answer's image."""
    images = _thumbnails(ingest, [error.row for error in wrong])
    return [
        Mistake(
            image=images.get(error.row),
            row=error.row,
            label=error.label,
            predicted=error.predicted,
            probability=error.probability,
            flipped=error.flipped,
        )
        for error in wrong
    ]
