"""Labelled images, however they are given: a folder of class folders, a CSV or Parquet file with
path and label, a pair (images, labels), or pairs (image, label) such as a torch Dataset gives.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fettle import manifest
from fettle.api.image_encoding import encode
from fettle.data import image_listing
from fettle.errors import DataError

TABLES = {".csv", ".parquet"}
_RULE = (
    "it is a folder of class folders, a CSV or Parquet file, a pair (images, labels), "
    "or pairs (image, label)"
)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image: `image` a path or anything that encode takes; `split` if its folder names one."""

    name: str
    image: object
    label: str
    split: str | None = None


def gather(data: object, *, what: str) -> Iterator[LabelledImage]:
    """Yield every image of `data`; `what` is what an error calls it.

    Raises DataError for what is no such thing, for a label that is missing, and for no images.
    """
    if isinstance(data, str | Path):
        found: Iterable[LabelledImage] = _listed(Path(data).expanduser(), what)
    else:
        found = _paired(data, what)
    count = 0
    for one in found:
        count += 1
        yield one
    if not count:
        raise DataError(f"{what} has no images", rule=_RULE, fix="give it some")


def write(splits: Mapping[str, object], folder: Path) -> Path:
    """Write the images of each split into `folder`, unless they are files; return their table.

    It is a CSV file for the source image_folder. A file that is the same is left alone, so that a
    second run finds nothing new.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []
    written: set[Path] = set()
    for split, data in splits.items():
        for one in gather(data, what=split):
            _refuse_own_split(one, split)
            path = one.image
            if not isinstance(path, str | Path):
                path = folder / split / f"{len(written):07d}.png"
                _write_same(path, encode(one.image, name=one.name))
                written.add(path)
            rows.append((str(Path(path).expanduser().resolve()), one.label, split))
    for stale in {path for path in folder.glob("*/*.png") if path.is_file()} - written:
        stale.unlink()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "split"))
    table.writerows(rows)
    out = folder / "images.csv"
    manifest.write_text(out, text.getvalue())
    return out


def _write_same(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.is_file() or path.read_bytes() != data:
        path.write_bytes(data)


def _refuse_own_split(one: LabelledImage, split: str) -> None:
    if one.split is not None:
        raise DataError(
            f"{split} names splits of its own",
            got=f"{one.name} in {one.split}",
            rule="what is given beside other splits is one split as a whole",
            fix="give that folder alone, as train: its splits are kept; or name the folder inside "
            "it that holds the class folders",
        )


def _listed(place: Path, what: str) -> Iterator[LabelledImage]:
    if not place.exists():
        raise DataError(
            f"{what}: there is nothing at {place}", rule=_RULE, fix="name what is there"
        )
    if place.is_file() and place.suffix.lower() not in TABLES:
        raise DataError(f"{what} is no data set", got=str(place), rule=_RULE)
    list_ = image_listing.list_manifest if place.is_file() else image_listing.list_folder
    for entry in list_(place):
        if entry.label is None:
            raise DataError(
                f"{what} has an image without a label",
                got=entry.row,
                rule="every image lies in a class folder, or has a label in the table",
                fix="move it into its class's folder, or take it out",
            )
        yield LabelledImage(entry.row, entry.path, entry.label, entry.split)


def _paired(data: object, what: str) -> Iterator[LabelledImage]:
    pairs = _pairs(data, what)
    for index, pair in enumerate(pairs):
        name = f"image {index} of {what}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(
                f"{what} gave something else than an image with its label",
                got=f"a {type(pair).__name__} at {index}",
                rule=_RULE,
            )
        yield LabelledImage(name, pair[0], label_text(pair[1], name))


def label_text(label: object, name: str) -> str:
    """Return a label as the text that names its class: 3, a tensor of 3 and "3" are one class."""
    item = getattr(label, "item", None)
    plain: object = item() if callable(item) and not isinstance(label, str) else label
    if isinstance(plain, bool) or not isinstance(plain, str | int) or str(plain).strip() == "":
        raise DataError(
            f"{name} has no label",
            got=repr(plain),
            rule="a label is a class's name or its number",
            fix="give each image one",
        )
    return str(plain)


def _pairs(data: object, what: str) -> Iterator[object]:
    """Read (images, labels), or pairs: from what is iterated, or has a length and items."""
    if isinstance(data, tuple) and len(data) == 2 and all(map(_is_many, data)):
        images, labels = data
        if len(images) != len(labels):
            raise DataError(
                f"{what} has more images than labels, or fewer",
                got=f"{len(images):,} images and {len(labels):,} labels",
                rule="each image has one label",
            )
        return iter(zip(images, labels, strict=True))
    if _is_many(data):
        items = cast(Sequence[object], data)  # a torch Dataset, which need not say where it ends
        return (items[index] for index in range(len(items)))
    if isinstance(data, Iterable):
        return iter(data)
    raise DataError(f"{what} is no data set", got=type(data).__name__, rule=_RULE)


def _is_many(values: object) -> bool:
    return hasattr(values, "__len__") and hasattr(values, "__getitem__")
