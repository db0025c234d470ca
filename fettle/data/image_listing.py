"""List the images a user names: by folders (see folder_layout), or by a CSV or Parquet manifest."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import plugins
from fettle.data import folder_layout
from fettle.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}  # hidden ones: a dot first
SYSTEM_FOLDERS = {
    *("__macosx", "@eadir", "__pycache__"),
    *("$recycle.bin", "system volume information", "lost+found"),  # at the top of a drive
}
REQUIRED, OPTIONAL = ("path", "label"), ("group", "split")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One file: `row` is its path below the folder (or the manifest's), with "/".

    `inside` is its path below the folder of its class; of a manifest's row it is the row.
    """

    row: str
    path: Path
    label: str | None
    group: str | None = None
    split: str | None = None
    inside: str = ""


def text_of(path: str) -> str:
    """Return a path as text that can be written: odd bytes in a name become backslash escapes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace").replace(os.sep, "/")


def list_folder(root: Path, *, splits: bool = True) -> list[ListedImage]:
    """List a folder that has a sub-folder for each class, nested at will.

    With `splits`, those that its folders name are taken (folder_layout.py). Hidden and system files
    are left out. Any other file in a class is listed, image or not: validation gives the reason for
    those that cannot be used. An image beside the class folders is listed without a label.
    Raises DataError: no folder, no classes, an empty class, a folder that cannot be opened, a
    layout that can be read in two ways.
    """
    if not root.is_dir():
        raise DataError(
            f"there is no data folder {root}",
            rule="it holds one folder a class",
            fix="name it with `fettle run --data FOLDER` or as ingest.options.path in params.yaml",
        )
    classes, loose, files = _within(root)
    if not classes:
        raise DataError(
            f"the data folder {root} has no class folders",
            got=_beside(len(loose), files),
            rule="it holds one folder a class, with that class's images",
            fix="sort the images into folders, or name a CSV or Parquet file with path and label",
        )
    plain = [
        folder_layout.Part(folder, folder_layout.label_of(folder.name), None) for folder in classes
    ]
    parts = folder_layout.parts(root, classes, _look) if splits else plain
    found = {part: list(_walk(part.folder)) for part in parts}
    empty = [_relative(part.folder, root) for part, paths in found.items() if not paths]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(parts)} classes in {root} have no files",
            got=_some(empty),
            rule="every class folder holds images of that class",
            fix="add images or delete the folder",
        )
    entries = [
        ListedImage(
            _relative(path, root),
            path,
            text_of(part.label),
            None,
            part.split,
            _relative(path, part.folder),
        )
        for part, paths in found.items()
        for path in paths
    ]
    entries += _unlabelled(root, loose, parts)
    return sorted(entries, key=lambda entry: entry.row)


def _within(folder: Path) -> tuple[list[Path], list[Path], int]:
    """Return what lies directly in a folder: its folders, its images, and how many entries."""
    try:
        inside = sorted(folder.iterdir())
        folders = [p for p in inside if p.is_dir() and not _is_system(p.name, folder=True)]
    except OSError as err:
        raise _closed(err) from err
    images = [p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    return folders, [p for p in images if p not in folders], len(inside)


def _look(folder: Path) -> tuple[list[Path], bool]:
    folders, images, _ = _within(folder)
    return folders, bool(images)


def _unlabelled(
    root: Path, loose: list[Path], parts: Sequence[folder_layout.Part]
) -> list[ListedImage]:
    """List the images that lie beside class folders; in data with splits they are in some split."""
    beside = dict.fromkeys(loose, "train" if parts[0].split else None)
    for part in parts:
        if part.split and part.folder.parent != root:
            beside.update(dict.fromkeys(_within(part.folder.parent)[1], part.split))
    return [ListedImage(_relative(path, root), path, None, None, s) for path, s in beside.items()]


def _relative(path: Path, root: Path) -> str:
    return text_of(os.path.relpath(path, root))


def _beside(images: int, files: int) -> str:
    if images:
        return f"{images} images directly in it"
    return f"{files} files, no image among them" if files else "an empty folder"


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, through linked folders too, but never in a circle.

    Raises DataError where a folder cannot be opened: its images would be left out in silence.
    """

    def stop(err: OSError) -> None:
        raise _closed(err) from err

    seen = set()
    for at, folders, files in os.walk(folder, followlinks=True, onerror=stop):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_system(name, folder=True))
        yield from (Path(at, name) for name in sorted(files) if not _is_system(name, folder=False))


def _closed(err: OSError) -> DataError:
    return DataError(
        f"the folder {err.filename} cannot be opened",
        got=f"'{err.strerror}'",
        rule="every folder of the data is read",
        fix="make it readable, or take it out of the data",
    )


def _is_system(name: str, *, folder: bool) -> bool:
    known = SYSTEM_FOLDERS if folder else SYSTEM_FILES
    return name.startswith(".") or name.lower() in known


def list_manifest(path: Path, *, splits: bool = True) -> list[ListedImage]:
    """List the rows of a CSV or Parquet file with path, label and perhaps group and split.

    A relative path starts at the file's own folder; an empty label, group or split is none. A split
    may be written as folders' names may: Val, test_set. Without `splits` that column is not read.
    Raises DataError: not a table, no rows, a column is missing, an unknown split, no such image.
    """
    from fettle.data.image_table import (
        SPLITS,  # here: it imports pyarrow, which params errors do not need
    )

    table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    if not table:
        raise DataError(f"{path} has no rows", rule="it has one row an image", fix="fill it")
    entries: list[ListedImage] = []
    times: dict[str, int] = {}
    for index, line in enumerate(table, start=1):
        if not line["path"]:
            raise DataError(f"{path}, row {index}: no path", rule="every row names an image")
        given = line.get("split") if splits else None
        split = folder_layout.split_of(given) if given is not None else None
        if given is not None and split is None:
            raise DataError(
                f"{path}, row {index}: unknown split",
                got=f"'{given}'{plugins.suggest(given, list(SPLITS))}",
                rule=f"it is {', '.join(SPLITS)}, or empty",
            )
        file = _file(path.parent, line["path"])
        row = text_of(os.path.relpath(file, path.parent))
        times[row] = times.get(row, 0) + 1
        row += f"#{times[row]}" if times[row] > 1 else ""
        label = line["label"] and unicodedata.normalize("NFC", line["label"])
        inside = row.removeprefix(f"{label}/")
        entries.append(ListedImage(row, file, label, line.get("group"), split, inside))
    missing = [entry.row for entry in entries if not entry.path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(entries)} images that {path} names do not exist",
            got=_some(missing),
            rule="a relative path starts at the folder of that file",
            fix="mend the path column, or delete those rows",
        )
    return sorted(entries, key=lambda entry: entry.row)


def _file(folder: Path, name: str) -> Path:
    """Return the file of a manifest's row; one that Windows wrote has backslashes in its path."""
    path = folder / name
    written = folder / name.replace("\\", "/")
    return written if not path.exists() and written.exists() else path


def refuse_uneven(entries: Sequence[ListedImage], location: Path) -> None:
    """Refuse data whose own splits do not all have the same classes.

    Each split that the data names is kept as it is, and a class that is not in it can be neither
    trained nor judged. Raises DataError.
    """
    found: dict[str, set[str]] = {}
    for entry in entries:
        if entry.split is not None and entry.label is not None:
            found.setdefault(entry.split, set()).add(entry.label)
    every = {entry.label for entry in entries if entry.label is not None}
    gaps = [
        f"'{label}' is not in {split}{plugins.suggest(label, sorted(has - {label}))}"
        for split, has in sorted(found.items())
        for label in sorted(every - has)
    ]
    if gaps:
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        raise DataError(
            f"the splits of {location} do not have the same classes",
            got=", ".join(gaps[:5]) + more,
            rule="the splits that the data names are kept, and every class is trained and judged",
            fix="add images, mend the class's name, take the class out, or let all images be "
            "divided anew with ingest.options.splits: redraw",
        )


def _read_csv(path: Path) -> list[dict[str, str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            columns = _columns(path, reader.fieldnames or [])
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise DataError(
            f"{path} is no CSV file", got=str(err), rule="it is UTF-8 text with a header line"
        ) from err
    long = [index for index, line in enumerate(lines, start=1) if any(line.get(None) or ())]
    if long:
        raise DataError(
            f"{path}, row {long[0]}: more cells than the header has",
            got=f"{len(long)} such rows",
            rule="every row has the columns of the header",
            fix="put a name that holds a comma in double quotes",
        )
    return [{name: line[name] or None for name in columns} for line in lines]


def _read_parquet(path: Path) -> list[dict[str, str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = _columns(path, pq.read_schema(path).names)
        table = pq.read_table(path, columns=columns)
        values = [_texts(table[name]) for name in columns]
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"{path} is no Parquet file of text columns", got=str(err).splitlines()[0]
        ) from err
    return [
        {name: value or None for name, value in zip(columns, line, strict=True)}
        for line in zip(*values, strict=True)
    ]


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    """Return a column as text; NaN, which pandas writes for a missing number, is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


def _columns(path: Path, found: Sequence[str]) -> list[str]:
    """Return the columns to read.

    Raises DataError when a required one is missing.
    """
    double = [name for name in (*REQUIRED, *OPTIONAL) if list(found).count(name) > 1]
    if double:
        raise DataError(
            f"{path} has the column {double[0]} twice",
            got=f"the columns {', '.join(found)}",
            rule="one column of that name is read",
            fix="rename one of them",
        )
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        apart = len(found) == 1 and any(mark in found[0] for mark in ";\t|")
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}",
            got=f"the columns {', '.join(found) or '(none)'}",
            rule=f"it needs {' and '.join(REQUIRED)}, and may have {' and '.join(OPTIONAL)}",
            fix="separate the columns by commas" if apart else "rename or add the column",
        )
    return [name for name in (*REQUIRED, *OPTIONAL) if name in found]


def count_labels(entries: Sequence[ListedImage]) -> Mapping[str, int]:
    """Count the files of each label."""
    counts: dict[str, int] = {}
    for entry in entries:
        if entry.label is not None:
            counts[entry.label] = counts.get(entry.label, 0) + 1
    return counts


def _some(names: Sequence[str], most: int = 3) -> str:
    """Quote the first few names and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more
