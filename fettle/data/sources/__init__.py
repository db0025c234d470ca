"""One file per data source: the file name is the name in params.yaml (`ingest.source`).

A source offers `Params` (its options), `fingerprint(options, location)` and `read(options,
location)`; `location` is the absolute path of the user's data, None when there is none. Files
that begin with "_" are parts that sources and the ingest stage share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from fettle.params import Strict

SourceOptions = TypeVar("SourceOptions", bound=Strict)


@dataclass(frozen=True, slots=True)
class Item:
    """One image as found.

    `row` is unique in its source and holds no absolute path. `label` is None where the source
    names none (validation quarantines such a row). Items of one `group` never straddle splits.
    `split` is set when the source brings its own split. `error` says why the bytes could not be
    read from the disk at all; `encoded` is then empty.
    """

    row: str
    label: str | None
    group: str | None
    split: str | None
    encoded: bytes
    error: str | None = None


class Source(Protocol[SourceOptions]):
    """The shape of a source file."""

    Params: type[SourceOptions]

    def fingerprint(self, options: SourceOptions, location: Path | None) -> dict[str, str | int]:
        """Return {"digest", "images"}: the digest changes if and only if the content does.

        Cheap, since every `fettle` command asks. Raises DataError when there is no data.
        """

    def read(self, options: SourceOptions, location: Path | None) -> Iterator[Item]:
        """Yield every image, in a fixed order.

        Raises DataError when the data is missing, empty or of one class only.
        """
