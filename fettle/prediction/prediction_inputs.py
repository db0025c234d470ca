"""Inputs of batch prediction: lists images by folder, file or table, and reads them in order.

A folder is walked in sorted order; of its files those with an image's suffix are taken. A file
named by itself is taken whatever its suffix. A Parquet file has the encoded images in a column
`bytes` or `image` (binary, or a struct with bytes, as Hugging Face writes it), or their files in
`path`; a CSV file has `path`, relative to the table's own folder.
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.data.image_listing import SUFFIXES, SYSTEM_FOLDERS, text_of
from fettle.errors import DataError

TABLES = {".csv", ".parquet"}
FILE_BYTES_MAX = 256 * 2**20  # as ingest takes them (fettle/data/sources/image_folder.py)
COLUMNS: tuple[str, ...] = ("bytes", "image", "path")
_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image as found: `error` says why its bytes could not be read; they are then empty."""

    row: str
    encoded: bytes
    error: str | None = None


def check(places: Sequence[Path]) -> None:
    """Refuse a place that is not there, an empty folder, a table without images.

    Raises DataError, before anything is loaded.
    """
    for place in places:
        if not place.exists():
            raise DataError(
                f"there is no image, folder or table at {place}",
                fix="name a folder of images, image files, or a Parquet or CSV file",
            )
        if place.is_dir():
            if next(_walk(place), None) is None:
                raise DataError(
                    f"the folder {place} has no images",
                    got=f"no file ending in {', '.join(sorted(SUFFIXES))}",
                    fix="name the folder that holds them; those below it are read too",
                )
        elif place.suffix.lower() in TABLES:
            _column(place)


def read(places: Sequence[Path]) -> Iterator[InputImage]:
    """Yield every image of every place, in order; a row is named as the user would find it."""
    for place in places:
        if place.is_dir():
            for path in _walk(place):
                below = path.relative_to(place) if len(places) == 1 else path
                yield _load(text_of(str(below)), path)
        elif place.suffix.lower() in TABLES:
            yield from _of_table(place)
        else:
            yield _load(text_of(str(place)), place)


def _walk(folder: Path) -> Iterator[Path]:
    def stop(err: OSError) -> None:
        raise DataError(
            f"the folder {err.filename} cannot be opened",
            got=f"'{err.strerror}'",
            fix="make it readable, or name other folders",
        ) from err

    seen = set()
    for at, folders, files in os.walk(folder, followlinks=True, onerror=stop):
        real = os.path.realpath(at)
        if real in seen:  # a link that leads in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name.lower() not in SYSTEM_FOLDERS
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(at, name)


def _load(row: str, path: Path) -> InputImage:
    """Read a file, or say why not."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return InputImage(row, b"", "no file but a folder, a pipe, a socket or a device")
        if found.st_size > FILE_BYTES_MAX:
            too_large = f"the file has {found.st_size:,} bytes, above {FILE_BYTES_MAX:,}"
            return InputImage(row, b"", too_large)
        return InputImage(row, path.read_bytes())
    except OSError as err:
        return InputImage(row, b"", f"the file cannot be read: {err.strerror}")


def _named(name: str, folder: Path) -> InputImage:
    if not name:
        return InputImage("", b"", "the row names no image")
    return _load(text_of(name), folder / name)


def _column(place: Path) -> str:
    """Return the column that holds the images or their paths; raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if place.suffix.lower() == ".csv":
            with place.open(encoding="utf-8-sig", newline="") as handle:
                lines = csv.DictReader(handle)
                found, wanted = list(lines.fieldnames or []), COLUMNS[-1:]
                rows = int(next(lines, None) is not None)
        else:
            schema = pq.read_schema(place)
            found, wanted = schema.names, COLUMNS
            rows = pq.read_metadata(place).num_rows
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as err:
        raise DataError(
            f"{place} is no {place.suffix[1:].lower()} table", got=str(err).splitlines()[0]
        ) from err
    column = next((name for name in wanted if name in found), None)
    if column is None:
        raise DataError(
            f"{place} names no images",
            got=f"the columns {', '.join(found) or '(none)'}",
            rule=f"one of them is {', '.join(wanted)}",
            fix="rename the column that holds the images or their paths",
        )
    if rows == 0:
        raise DataError(f"{place} has no rows", rule="it has one row an image", fix="fill it")
    if place.suffix.lower() == ".parquet":
        _refuse_type(place, column, schema.field(column).type)
    return column


def _refuse_type(place: Path, column: str, kind: object) -> None:
    import pyarrow as pa

    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    inside = kind
    if column == "image" and pa.types.is_struct(kind):
        inside = next((part.type for part in kind if part.name == "bytes"), None)  # type: ignore[attr-defined]  # pyarrow ships no types
    is_bytes = inside is not None and (
        pa.types.is_binary(inside) or pa.types.is_large_binary(inside)
    )
    if is_text if column == "path" else is_bytes:
        return
    raise DataError(
        f"{place}: the column {column} holds no {'paths' if column == 'path' else 'images'}",
        got=f"values of type {kind}",
        rule="bytes and image hold encoded images (JPEG, PNG, …), path holds text",
        fix="write the encoded files, not arrays, into it",
    )


def _of_table(place: Path) -> Iterator[InputImage]:
    """Yield the images of a table; raises DataError where it breaks off."""
    import pyarrow as pa

    try:
        yield from _of_parquet(place) if place.suffix.lower() == ".parquet" else _of_csv(place)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as err:
        raise DataError(
            f"{place} breaks off", got=str(err).splitlines()[0], fix="write the table again"
        ) from err


def _of_csv(place: Path) -> Iterator[InputImage]:
    with place.open(encoding="utf-8-sig", newline="") as handle:
        for line in csv.DictReader(handle):
            yield _named(line["path"] or "", place.parent)


def _of_parquet(place: Path) -> Iterator[InputImage]:
    import pyarrow.parquet as pq

    column = _column(place)
    with pq.ParquetFile(place) as file:
        names = file.schema_arrow.names
        named = next((name for name in ("row", "path") if name in names), None)
        columns = [column] if named in (None, column) else [column, named]
        at = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for line in batch.to_pylist():
                at += 1
                if column == "path":
                    yield _named(line["path"] or "", place.parent)
                    continue
                cell = line[column]
                data = cell.get("bytes") if isinstance(cell, dict) else cell
                given = line.get(named) if named else None
                if given is None and isinstance(cell, dict):
                    given = cell.get("path")
                row = str(given) if given is not None else str(at)
                error = None if data is not None else "the row holds no image"
                yield InputImage(row, data or b"", error)
