"""Bring the images into one table: read, look into each once, and divide into splits.

Reads:   the source's data (inputs/local.yaml `data`, else the source's `path` option, else what
         it brings itself) and inputs/source.json, which says which content was asked for.
Writes:  images.parquet (fettle/data/image_table.py SCHEMA), its rows shuffled by the seed.
Params:  seed, ingest.
Facts:   fettle/facts/ingest_facts.py
Refuses: a source that no longer has the content of inputs/source.json; data that is missing or
         empty, or has one class only; folders that can be read in two ways; splits of the data's
         own with different classes; a group that the data itself puts in two splits.

An image that cannot be decoded stays in the table with its `error`: validation decides.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from fettle import licences, local_settings, plugins
from fettle.data import image_table, smoke_subset
from fettle.data.bounded_thread_map import bounded_thread_map
from fettle.data.image_inspection import ImageFacts, look_aloud
from fettle.data.image_table import SPLITS
from fettle.data.sources import Item
from fettle.data.splitting import SplitTable, assign, assign_fold, order_key
from fettle.errors import DataError, OurFault, ProjectError
from fettle.facts.ingest_facts import IngestFacts
from fettle.params import Params
from fettle.params_schema import SplitParams
from fettle.recorder import Recorder
from fettle.scratch_file import ScratchFile
from fettle.stage_contract import Inputs, Outputs

READS: tuple[str, ...] = ()
SECTIONS = ("seed", "ingest")
MEASURES = False

# A row group ends at either limit: a reader that wants few rows reads little, and no more of the
# images than one group is ever in memory. Felt right: a few dozen groups for 70,000 images.
GROUP_ROWS = 4096
GROUP_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class IngestedImages:
    """One image, looked into; its encoded bytes are `length` bytes at `offset` of the spool, and
    `item` has them no more.
    """

    item: Item
    sha256: str
    look: ImageFacts
    offset: int
    length: int


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[IngestFacts]:
    """Make images.parquet."""
    name = params.ingest.source
    source = plugins.resolve("sources", name, where="ingest.source")
    options = source.Params.model_validate(params.ingest.options, strict=False)
    place = local_settings.location(inputs.project, options)
    print_now = source.fingerprint(options, place)
    refuse_stale(inputs.project / "inputs" / "source.json", name, str(print_now["digest"]))
    drawn = draw_smoke(source.read(options, place), params)
    items = (i for i in source.read(options, place) if drawn is None or i.row in drawn)
    spool = ScratchFile(inputs.scratch, what="the encoded images")
    expected = len(drawn or ()) or int(print_now["images"])
    images = inspect_images(items, expected, recorder, spool)
    if not images:
        raise DataError(
            f"the source {name} gave no images", fix="name other data in params.yaml: ingest"
        )
    refuse_double_rows(images, name)
    splits = (
        [drawn[image.item.row] for image in images]
        if drawn
        else assign_splits([image.item for image in images], params.ingest.split, params.seed)
    )
    rows = sorted(
        zip(images, splits, strict=True), key=lambda row: order_key(params.seed, row[0].item.row)
    )
    image_table.write(out / image_table.IMAGES, image_table.SCHEMA, row_groups(rows, spool))
    recorder.progress(1.0, f"{len(rows):,} images")
    whence = split_origins([image.item.split for image in images])
    if "own" in whence.values():
        counts = Counter(splits)
        counts_text = ", ".join(f"{name} {counts[name]:,} ({whence[name]})" for name in SPLITS)
        recorder.note("warning", f"the data's own splits are kept, not ingest.split: {counts_text}")
    for labels in labels_alike({image.item.label for image in images} - {None}):
        recorder.note("warning", f"classes that differ in case only: {', '.join(labels)}")
    facts = IngestFacts(
        source=name,
        digest=str(print_now["digest"]),
        rows=len(rows),
        unreadable=sum(image.look.error is not None for image in images),
        groups=len({image.item.group for image in images} - {None}),
        classes=count_classes(rows),
        splits=whence,
        licence=licences.stated(source, options, place),
    )
    smoke = {"limited_from": int(print_now["images"])} if drawn else {}
    return Outputs(facts=facts.model_copy(update=smoke))


def draw_smoke(items: Iterable[Item], params: Params) -> dict[str, str] | None:
    """Draw the rows of a smoke run, each with its split; None where ingest.limit asks for none.

    The split is made of the whole source: its bytes are passed over, none is decoded.
    """
    limit = params.ingest.limit
    if limit is None:
        return None
    bare = [replace(item, encoded=b"") for item in items]
    splits = assign_splits(bare, params.ingest.split, params.seed)
    rows, labels = [item.row for item in bare], [item.label for item in bare]
    kept = smoke_subset.draw(rows=rows, labels=labels, splits=splits, limit=limit, seed=params.seed)
    return {row: split for row, split in zip(rows, splits, strict=True) if row in kept}


def labels_alike(labels: Iterable[str | None]) -> list[list[str]]:
    """Group the labels that differ in upper and lower case only, as a slip of the hand makes."""
    groups: dict[str, list[str]] = {}
    for label in sorted(filter(None, labels)):
        groups.setdefault(label.casefold(), []).append(f"'{label}'")
    return [group for group in groups.values() if len(group) > 1]


def split_origins(named: Sequence[str | None]) -> dict[str, str]:
    """Origin of each split: whether it is the data's own or drawn by ingest.split, and from what.

    What follows from fettle/data/splitting.py: what the data names stands; a split that it does not
    name is drawn from the rows without one, or from train where every row has one.
    """
    own = {split for split in named if split is not None}
    if not own:
        return dict.fromkeys(SPLITS, "drawn")
    pool = "the rows without a split" if None in named else "train"
    return {split: "own" if split in own else f"drawn from {pool}" for split in SPLITS}


def assign_splits(items: Sequence[Item], split: SplitParams, seed: int) -> list[str]:
    """Assign each row its split.

    Raises DataError where folds are asked of data that names splits of its own.
    """
    rows, labels = [item.row for item in items], [item.label for item in items]
    groups, named = [item.group for item in items], [item.split for item in items]
    shares = split.model_dump(exclude={"fold"})
    if split.fold is None:
        return assign(
            rows=rows, labels=labels, groups=groups, named=named, shares=shares, seed=seed
        )
    own = sorted({str(name) for name in named if name is not None})
    if own:
        raise DataError(
            "the data names splits of its own, so it has no folds",
            got=", ".join(own),
            rule="cross-fitting tests every row once, by a model that never saw it",
            fix="take ingest.split.fold out of the params (`fettle crossfit` sets it): the data's "
            "own test set judges; or let image_folder divide all anew: ingest.options.splits: "
            "redraw",
        )
    table = SplitTable(rows, labels, groups)
    return assign_fold(table, shares, number=split.fold.number, of=split.fold.of, seed=seed)


def refuse_stale(path: Path, source: str, digest: str) -> None:
    """Compare the source now with what DVC was told.

    Raises ProjectError when the file is missing or names another content.
    """
    try:
        asked = json.loads(path.read_text()) if path.is_file() else {}
        recorded = asked.get("source"), asked.get("digest")
        before = f"{recorded[0]} {str(recorded[1])[:12]}" if path.is_file() else "no such file"
    except (ValueError, AttributeError):
        recorded, before = (None, None), "a file that is not JSON as fettle writes it"
    if recorded != (source, digest):
        raise ProjectError(
            f"inputs/{path.name} is stale",
            got=before,
            rule=f"the data is now {source} {digest[:12]}, and the cache is keyed by this file",
            fix="use `fettle run`, which refreshes it (a plain `dvc repro` cannot)",
        )


def inspect_images(
    items: Iterable[Item], expected: int, recorder: Recorder, spool: ScratchFile
) -> list[IngestedImages]:
    """Decode and digest each image once, and lay its bytes into the spool: the order of the table
    is known when all are read.
    """
    images: list[IngestedImages] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that it then reads well
        for index, (item, sha256, seen) in enumerate(bounded_thread_map(inspect_image, items)):
            offset, length = spool.append(item.encoded), len(item.encoded)
            bare = replace(item, encoded=b"")
            images.append(IngestedImages(bare, sha256, seen, offset, length))
            if index % GROUP_ROWS == 0:
                recorder.progress(min(index / max(expected, 1), 0.99), f"{index:,} images read")
    return images


def inspect_image(item: Item) -> tuple[Item, str, ImageFacts]:
    """Digest an image's bytes and look into it."""
    seen = ImageFacts(error=item.error) if item.error is not None else look_aloud(item.encoded)
    return item, hashlib.sha256(item.encoded).hexdigest(), seen


def refuse_double_rows(images: Sequence[IngestedImages], source: str) -> None:
    """Refuse a source that breaks its contract: a row's id is unique."""
    if len({image.item.row for image in images}) != len(images):
        raise OurFault(f"the source {source} gave two images the same row id")


def row_groups(
    rows: Iterable[tuple[IngestedImages, str]], spool: ScratchFile
) -> Iterator[pa.Table]:
    """Cut the rows into tables of bounded size."""
    group: list[tuple[IngestedImages, str]] = []
    size = 0
    for row, split in rows:
        group.append((row, split))
        size += row.length
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield row_group(group, spool)
            group, size = [], 0
    if group:
        yield row_group(group, spool)


def row_group(group: Sequence[tuple[IngestedImages, str]], spool: ScratchFile) -> pa.Table:
    """Make one table; its images go from the spool straight into the column."""
    columns: dict[str, Sequence[object] | pa.Array] = {
        "row": [row.item.row for row, _ in group],
        "label": [row.item.label for row, _ in group],
        "group": [row.item.group for row, _ in group],
        "split": [split for _, split in group],
        "sha256": [row.sha256 for row, _ in group],
        "bytes": encoded_column([row for row, _ in group], spool),
    }
    for name in ("format", "mode", "width", "height", "low", "high", "error"):
        columns[name] = [getattr(row.look, name) for row, _ in group]
    return pa.table(columns, schema=image_table.SCHEMA)


def encoded_column(rows: Sequence[IngestedImages], spool: ScratchFile) -> pa.Array:
    """Read the encoded images of some rows from the spool, in one copy."""
    ends = np.cumsum([0, *(row.length for row in rows)], dtype=np.int32)
    encoded = np.empty(int(ends[-1]), dtype=np.uint8)
    view = encoded.data
    for row, start in zip(rows, ends[:-1].tolist(), strict=True):
        spool.read_into(view[start : start + row.length], row.offset)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(encoded)]
    return pa.Array.from_buffers(pa.binary(), len(rows), buffers)


def count_classes(rows: Iterable[tuple[IngestedImages, str]]) -> dict[str, dict[str, int]]:
    """Count the images of each class in each split; those without a label are not counted."""
    counts: dict[str, dict[str, int]] = {}
    for row, split in rows:
        if row.item.label is not None:
            counts.setdefault(row.item.label, dict.fromkeys(SPLITS, 0))[split] += 1
    return dict(sorted(counts.items()))
