"""State the table that ingest hands over, and read one split of what validation let through.

`artifacts/ingest/images.parquet` has one row an image, in a fixed order:

    row     string   unique id: the path below the source, or its position in the source
    label   string   class name
    group   string   optional: rows of one group never straddle two splits
    split   string   train | validation | test
    sha256  string   of `bytes`
    format  string   JPEG, PNG, …; null when unreadable
    mode    string   Pillow's mode: L, RGB, CMYK, I;16, …; null when unreadable
    width, height   int32, pixels; null when unreadable
    low, high       float, darkest and brightest grey value as a share of full scale, 0 to 1
    error   string   why the bytes could not be decoded, else null
    bytes   binary   the encoded image as found

`artifacts/validate/rows.parquet` has the `row` ids that passed; quarantine.parquet the rest, as
(row, rule, reason).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

IMAGES = "images.parquet"
ROWS = "rows.parquet"
QUARANTINE = "quarantine.parquet"
SPLITS = ("train", "validation", "test")

# Of a column of images no more is read at a time: without a buffer a whole row group would be.
READ_BYTES, READ_IMAGES = 2**20, 64

SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("sha256", pa.string()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("low", pa.float32()),
        ("high", pa.float32()),
        ("error", pa.string()),
        ("bytes", pa.binary()),
    ]
)


def write(path: Path, schema: pa.Schema, groups: Iterable[pa.Table]) -> None:
    """Write a Parquet file, one row group a table: the same tables give the same bytes.

    Encoded images are stored as they are (they do not compress), without statistics (those would
    repeat whole images); the rest is compressed.
    """
    plain = [field.name for field in schema if field.type != pa.binary()]
    codecs = {field.name: "zstd" if field.name in plain else "none" for field in schema}
    with pq.ParquetWriter(
        path, schema, compression=codecs, use_dictionary=plain, write_statistics=plain
    ) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(1, group.num_rows))
            del group  # before the next is made


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: `encoded[i]` has class `classes[labels[i]]`."""

    ids: list[str]
    encoded: list[bytes]
    labels: list[int]
    classes: list[str]
    groups: list[str | None]


@dataclass(frozen=True, slots=True)
class SplitRows:
    """One split without its images: row i is the `places[i]`-th of the table."""

    ids: list[str]
    places: npt.NDArray[np.int64]
    labels: list[int]
    classes: list[str]
    groups: list[str | None]

    def first(self, most: int | None) -> SplitRows:
        """Return the first rows alone; None for all."""
        return replace(
            self,
            ids=self.ids[:most],
            places=self.places[:most],
            labels=self.labels[:most],
            groups=self.groups[:most],
        )


def read_rows(ingest: Path, validate: Path, split: str) -> SplitRows:
    """Read which rows of `split` validation let through, in ingest's order.

    `classes` is the sorted set of labels over all splits, so that an index means the same
    everywhere.
    """
    passed = pq.read_table(validate / ROWS, columns=["row"])["row"]
    table = pq.read_table(ingest / IMAGES, columns=["row", "label", "group", "split"])
    kept = pc.is_in(table["row"], value_set=passed)
    classes = sorted(set(table["label"].filter(kept).to_pylist()))
    wanted = pc.and_(kept, pc.equal(table["split"], split))
    found = table.filter(wanted)
    index = {name: at for at, name in enumerate(classes)}
    return SplitRows(
        ids=found["row"].to_pylist(),
        places=np.flatnonzero(wanted.to_numpy()),
        labels=[index[name] for name in found["label"].to_pylist()],
        classes=classes,
        groups=found["group"].to_pylist(),
    )


def read_encoded(images: Path, places: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Read the encoded images at some places of the table, ascending, one after the other.

    A row group at a time, of it a few images at a time; one without any is passed over.
    """
    with pq.ParquetFile(images, buffer_size=READ_BYTES, pre_buffer=False) as file:
        groups = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        start = 0
        for group, rows in enumerate(groups):
            inside = places[np.searchsorted(places, start) : np.searchsorted(places, start + rows)]
            if len(inside):
                yield from _read_group(file, group, inside - start)
            start += rows


def _read_group(file: pq.ParquetFile, group: int, inside: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Read the images at some places of one row group, as far as the last of them."""
    start = 0
    for batch in file.iter_batches(
        READ_IMAGES, row_groups=[group], columns=["bytes"], use_threads=False
    ):
        column = batch.column(0)
        for at in inside[(inside >= start) & (inside < start + len(column))].tolist():
            yield column[at - start].as_py()
        start += len(column)
        if start > inside[-1]:
            return


def read_images(images: Path, rows: Collection[str]) -> dict[str, bytes]:
    """Read the encoded images of a few rows, but for those that cannot be decoded."""
    table = pq.read_table(images, columns=["row", "error"])
    chosen = pc.and_(
        pc.is_in(table["row"], value_set=pa.array(list(rows), pa.string())),
        pc.is_null(table["error"]),
    )
    found = read_encoded(images, np.flatnonzero(chosen.to_numpy()))
    return dict(zip(table["row"].filter(chosen).to_pylist(), found, strict=True))


def encoded_bytes(images: Path, count: int) -> int:
    """Estimate what `count` of the table's images take encoded, by the mean of all."""
    rows: int = pq.read_metadata(images).num_rows
    return images.stat().st_size * count // max(1, rows)


def read_split(ingest: Path, validate: Path, split: str) -> Rows:
    """Read the rows of `split` that validation let through with their images, all in memory."""
    found = read_rows(ingest, validate, split)
    return Rows(
        ids=found.ids,
        encoded=list(read_encoded(ingest / IMAGES, found.places)),
        labels=found.labels,
        classes=found.classes,
        groups=found.groups,
    )


def shorter_sides(ingest: Path, validate: Path, split: str) -> list[int]:
    """Read the shorter side in pixels of each image of `split` that validation let through."""
    passed = pq.read_table(validate / ROWS, columns=["row"])["row"]
    table = pq.read_table(
        ingest / IMAGES,
        columns=["width", "height"],
        filters=pc.equal(pc.field("split"), split) & pc.field("row").isin(passed),
    )
    return pc.min_element_wise(table["width"], table["height"]).to_pylist()  # type: ignore[no-any-return] # pyarrow is untyped
