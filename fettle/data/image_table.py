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

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

IMAGES = "images.parquet"
ROWS = "rows.parquet"
QUARANTINE = "quarantine.parquet"
SPLITS = ("train", "validation", "test")

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


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: `encoded[i]` has class `classes[labels[i]]`."""

    ids: list[str]
    encoded: list[bytes]
    labels: list[int]
    classes: list[str]
    groups: list[str | None]


def read_split(ingest: Path, validate: Path, split: str) -> Rows:
    """Read the rows of `split` that validation let through, in ingest's order.

    `classes` is the sorted set of labels over all splits, so that an index means the same
    everywhere.
    """
    passed = pq.read_table(validate / ROWS, columns=["row"])["row"]
    labels = pq.read_table(ingest / IMAGES, columns=["row", "label"])
    kept = labels.filter(pc.is_in(labels["row"], value_set=passed))
    classes = sorted(set(kept["label"].to_pylist()))
    table = pq.read_table(
        ingest / IMAGES,
        columns=["row", "label", "group", "bytes"],
        filters=pc.equal(pc.field("split"), split) & pc.field("row").isin(passed),
    )
    index = {name: at for at, name in enumerate(classes)}
    return Rows(
        ids=table["row"].to_pylist(),
        encoded=table["bytes"].to_pylist(),
        labels=[index[name] for name in table["label"].to_pylist()],
        classes=classes,
        groups=table["group"].to_pylist(),
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
