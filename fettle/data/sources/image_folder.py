"""The user's own images: a folder for each class, or a CSV/Parquet file with path and label.

A folder's classes may be nested; hidden files are left out. Where folders named train, validation
and test hold the classes, or lie in each class, these splits are kept as they are. A CSV/Parquet
file may also have the columns `group` (images that must stay in one split: a person, a scene) and
`split`. A validation or test set that the data does not name is drawn from its train images, by
ingest.split and the seed. Anything in a class that turns out to be no image becomes a row too, so
that validation can say why it is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from fettle import licences
from fettle.data import file_digest_cache, image_listing
from fettle.data.source_cache import cache_folder
from fettle.data.sources import Item
from fettle.errors import DataError
from fettle.params import Strict

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
    whole match names the group. `splits`: `own` keeps those that the data names, `redraw` divides
    all images anew (`fettle crossfit` needs that), `classes` takes folders named train or test for
    classes.
    """

    path: str | None = None
    splits: Literal["own", "redraw", "classes"] = "own"
    group_pattern: Annotated[str, AfterValidator(_compiles)] | None = None


def licence(options: Params, location: Path | None) -> str | None:
    """State what a file LICENSE in the folder, or beside the table, says."""
    del options
    return None if location is None else licences.beside(location)


def fingerprint(options: Params, location: Path | None) -> dict[str, str | int]:
    """Digest every file's row and content; unchanged files are not read again.

    Raises DataError as `read` does, and where the data's own splits have different classes.
    """
    entries = _list(options, location)
    if location is not None:
        image_listing.refuse_uneven(entries, location)
    name = hashlib.sha256(str(location).encode()).hexdigest()[:16]
    cache = cache_folder("stat") / f"{name}.json"
    paths = [entry.path for entry in entries]
    contents = file_digest_cache.digests(paths, cache=cache, now_ns=time.time_ns())
    total = hashlib.sha256()
    for entry, content in zip(entries, contents, strict=True):
        line = [entry.row, entry.label, entry.group, entry.split, content]
        total.update(json.dumps(line).encode() + b"\n")
    stated = licence(options, location)  # ingest hands it on: a changed one is a changed input
    more = {} if stated is None else {"licence": stated}
    return {"digest": total.hexdigest(), "images": len(entries), **more}


def read(options: Params, location: Path | None) -> Iterator[Item]:
    """Yield every file, sorted by row.

    Raises DataError: no location, no folder or file there, no classes, an empty class, one class
    only, a broken CSV/Parquet file, a pattern that matches nothing.
    """
    entries = _list(options, location)
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


def _list(options: Params, location: Path | None) -> list[image_listing.ListedImage]:
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
    take = image_listing.list_manifest if is_manifest else image_listing.list_folder
    entries = take(location, splits=options.splits != "classes")
    if options.splits == "redraw":
        entries = [replace(entry, split=None) for entry in entries]
    labels = image_listing.count_labels(entries)
    if len(labels) < 2:
        raise DataError(
            f"{location} has {len(labels)} classes" if not labels else f"{location} has one class",
            got=", ".join(f"'{label}' ({n} files)" for label, n in labels.items()) or "no label",
            rule="a classifier needs at least two",
            fix=_more_classes(is_manifest, entries),
        )
    return entries


def _more_classes(is_manifest: bool, entries: Sequence[image_listing.ListedImage]) -> str:
    labelled = [entry for entry in entries if entry.label is not None]
    if is_manifest:
        return "add rows of another class" if labelled else "fill the label column"
    images = [one for one in labelled if one.path.suffix.lower() in image_listing.SUFFIXES]
    if images and all("/" in entry.inside for entry in images):
        above = images[0].path.parents[images[0].inside.count("/")]
        return f"name {above}, if the classes lie in that, or add a folder for each other class"
    return "add a folder for each other class"


def _group(pattern: str | None, entry: image_listing.ListedImage) -> str | None:
    if pattern is None:
        return None
    match = re.search(pattern, entry.inside)
    if match is None:
        return None
    if "group" in match.re.groupindex:
        return match["group"]
    return match[1] if match.re.groups else match[0]


def _load(path: Path) -> tuple[bytes, str | None]:
    """Read a file, or say why not: its row then goes to quarantine."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return b"", "no file but a pipe, a socket or a device"
        size = found.st_size
        if size > FILE_BYTES_MAX:
            return b"", f"the file has {size:,} bytes, above {FILE_BYTES_MAX:,}"
        return path.read_bytes(), None
    except OSError as err:
        return b"", f"the file cannot be read: {err.strerror}"
