"""The user's own images: a folder for each class, or a CSV/Parquet file with path and label.

A folder's classes may be nested; hidden files are left out. A file may also have the columns
`group` (images that must stay in one split: a person, a scene) and `split`. Anything in a class
that turns out to be no image becomes a row too, so that validation can say why it is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from fettle.errors import DataError
from fettle.params import Strict
from fettle.sources import Item, _listing, _stat_cache
from fettle.sources._cache import cache_folder

MANIFESTS = {".csv", ".parquet"}
FILE_BYTES_MAX = 256 * 2**20  # what the largest image that Pillow decodes takes as raw samples


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as err:
        raise ValueError(f"no valid regular expression: {err}") from err
    return pattern


class Params(Strict):
    """Where the images are and what belongs together.

    `path`: the folder or the CSV/Parquet file, relative to the project. `group_pattern`: a
    regular expression searched in an image's path below its class folder (for a CSV/Parquet file
    without a group column, in its path); its part named `group`, else its first part, else the
    whole match names the group.
    """

    path: str | None = None
    group_pattern: Annotated[str, AfterValidator(_compiles)] | None = None


def fingerprint(options: Params, location: Path | None) -> dict[str, str | int]:
    """Digest every file's row and content; unchanged files are not read again.

    Raises DataError as `read` does.
    """
    del options
    entries = _list(location)
    name = hashlib.sha256(str(location).encode()).hexdigest()[:16]
    cache = cache_folder("stat") / f"{name}.json"
    paths = [entry.path for entry in entries]
    contents = _stat_cache.digests(paths, cache=cache, now_ns=time.time_ns())
    total = hashlib.sha256()
    for entry, content in zip(entries, contents, strict=True):
        line = [entry.row, entry.label, entry.group, entry.split, content]
        total.update(json.dumps(line).encode() + b"\n")
    return {"digest": total.hexdigest(), "images": len(entries)}


def read(options: Params, location: Path | None) -> Iterator[Item]:
    """Yield every file, sorted by row.

    Raises DataError: no location, no folder or file there, no classes, an empty class, one class
    only, a broken CSV/Parquet file, a pattern that matches nothing.
    """
    entries = _list(location)
    groups = [entry.group or _group(options.group_pattern, entry) for entry in entries]
    if options.group_pattern is not None and not any(groups):
        raise DataError(
            "no image gets a group from ingest.options.group_pattern",
            got=f"'{options.group_pattern}'; the first image is '{entries[0].row}'",
            rule="it is searched in the path below the class folder",
            fix="mend the pattern, or set it to null",
        )
    for entry, group in zip(entries, groups, strict=True):
        encoded, error = _load(entry.path)
        yield Item(entry.row, entry.label, group, entry.split, encoded, error)


def _list(location: Path | None) -> list[_listing.Entry]:
    if location is None:
        raise DataError(
            "the source image_folder was given no data",
            rule="it reads a folder for each class, or a CSV/Parquet file with path and label",
            fix="name it with `fettle run --data PATH` or as ingest.options.path in params.yaml",
        )
    if location.is_file() and location.suffix.lower() not in MANIFESTS:
        raise DataError(
            f"{location} cannot be read as a data set",
            got=f"a file of type '{location.suffix}'",
            rule="data is a folder, or a .csv or .parquet file",
            fix="unpack it first, if it is an archive",
        )
    is_manifest = location.is_file()
    entries = _listing.list_manifest(location) if is_manifest else _listing.list_folder(location)
    labels = _listing.count_labels(entries)
    if len(labels) < 2:
        raise DataError(
            f"{location} has {len(labels)} classes" if not labels else f"{location} has one class",
            got=", ".join(f"'{label}' ({n} files)" for label, n in labels.items()) or "no label",
            rule="a classifier needs at least two",
            fix=_more_classes(is_manifest, bool(labels)),
        )
    return entries


def _more_classes(is_manifest: bool, labelled: bool) -> str:
    if not is_manifest:
        return "add a folder for each other class"
    return "add rows of another class" if labelled else "fill the label column"


def _group(pattern: str | None, entry: _listing.Entry) -> str | None:
    if pattern is None:
        return None
    inside = entry.row.removeprefix(f"{entry.label}/")
    match = re.search(pattern, inside)
    if match is None:
        return None
    if "group" in match.re.groupindex:
        return match["group"]
    return match[1] if match.re.groups else match[0]


def _load(path: Path) -> tuple[bytes, str | None]:
    """Read a file, or say why not: its row then goes to quarantine."""
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            return b"", f"the file has {size:,} bytes, above {FILE_BYTES_MAX:,}"
        return path.read_bytes(), None
    except OSError as err:
        return b"", f"the file cannot be read: {err.strerror}"
