"""List the images a user names: by a folder for each class, or by a CSV or Parquet manifest."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle import plugins
from fettle.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}  # hidden ones begin with a dot
SYSTEM_FOLDERS = {"__macosx", "@eadir"}
REQUIRED, OPTIONAL = ("path", "label"), ("group", "split")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: `row` is its path below the folder (or the manifest's), with "/"."""

    row: str
    path: Path
    label: str | None
    group: str | None = None
    split: str | None = None


def text_of(path: str) -> str:
    """Return a path as text that can be written: odd bytes in a name become backslash escapes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace").replace(os.sep, "/")


def list_folder(root: Path) -> list[Entry]:
    """List a folder that has a sub-folder for each class, nested at will.

    Hidden and system files are left out. Any other file in a class is listed, image or not:
    validation gives the reason for those that cannot be used. An image beside the class folders
    is listed without a label. Raises DataError: no folder, no classes, an empty class, a
    folder that cannot be opened.
    """
    if not root.is_dir():
        raise DataError(
            f"there is no data folder {root}",
            rule="it holds one folder a class",
            fix="name it with `fettle run --data FOLDER` or as ingest.options.path in params.yaml",
        )
    try:
        inside = sorted(root.iterdir())
    except OSError as err:
        raise _closed(err) from err
    classes = [p for p in inside if p.is_dir() and not _is_system(p.name, folder=True)]
    loose = [p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    if not classes:
        raise DataError(
            f"the data folder {root} has no class folders",
            got=_beside(len(loose), len(inside)),
            rule="it holds one folder a class, with that class's images",
            fix="sort the images into folders, or name a CSV or Parquet file with path and label",
        )
    found = {folder: list(_walk(folder)) for folder in classes}
    empty = [folder.name for folder, paths in found.items() if not paths]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(classes)} classes in {root} have no files",
            got=_some(empty),
            rule="every class folder holds images of that class",
            fix="add images or delete the folder",
        )
    entries = [
        Entry(text_of(os.path.relpath(path, root)), path, text_of(folder.name))
        for folder, paths in found.items()
        for path in paths
    ]
    entries += [Entry(text_of(path.name), path, None) for path in loose]
    return sorted(entries, key=lambda entry: entry.row)


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


def list_manifest(path: Path) -> list[Entry]:
    """List the rows of a CSV or Parquet file with path, label and perhaps group and split.

    A relative path starts at the file's own folder; an empty label, group or split is none.
    Raises DataError: not a table, no rows, a column is missing, an unknown split, no such image.
    """
    from fettle.dataset import SPLITS  # here: it imports pyarrow, which params errors do not need

    table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    if not table:
        raise DataError(f"{path} has no rows", rule="it has one row an image", fix="fill it")
    entries: list[Entry] = []
    times: dict[str, int] = {}
    for at, line in enumerate(table, start=1):
        if not line["path"]:
            raise DataError(f"{path}, row {at}: no path", rule="every row names an image")
        if line.get("split") not in (None, *SPLITS):
            raise DataError(
                f"{path}, row {at}: unknown split",
                got=f"'{line['split']}'{plugins.suggest(str(line['split']), list(SPLITS))}",
                rule=f"it is {', '.join(SPLITS)}, or empty",
            )
        file = path.parent / line["path"]
        row = text_of(os.path.relpath(file, path.parent))
        times[row] = times.get(row, 0) + 1
        row += f"#{times[row]}" if times[row] > 1 else ""
        entries.append(Entry(row, file, line["label"], line.get("group"), line.get("split")))
    missing = [entry.row for entry in entries if not entry.path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(entries)} images that {path} names do not exist",
            got=_some(missing),
            rule="a relative path starts at the folder of that file",
            fix="mend the path column, or delete those rows",
        )
    return sorted(entries, key=lambda entry: entry.row)


def _read_csv(path: Path) -> list[dict[str, str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            columns = _columns(path, reader.fieldnames or [])
            return [{name: line[name] or None for name in columns} for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise DataError(
            f"{path} is no CSV file", got=str(err), rule="it is UTF-8 text with a header line"
        ) from err


def _read_parquet(path: Path) -> list[dict[str, str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = _columns(path, pq.read_schema(path).names)
        table = pq.read_table(path, columns=columns)
        values = [table[name].cast(pa.string()).to_pylist() for name in columns]
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"{path} is no Parquet file of text columns", got=str(err).splitlines()[0]
        ) from err
    return [
        {name: value or None for name, value in zip(columns, line, strict=True)}
        for line in zip(*values, strict=True)
    ]


def _columns(path: Path, found: Sequence[str]) -> list[str]:
    """Return the columns to read.

    Raises DataError when a required one is missing.
    """
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}",
            got=f"the columns {', '.join(found) or '(none)'}",
            rule=f"it needs {' and '.join(REQUIRED)}, and may have {' and '.join(OPTIONAL)}",
            fix="rename or add the column",
        )
    return [name for name in (*REQUIRED, *OPTIONAL) if name in found]


def count_labels(entries: Sequence[Entry]) -> Mapping[str, int]:
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
