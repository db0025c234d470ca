"""Ledger of verdicts, verdicts.jsonl beside params.yaml: how often which test images have judged.

One line of JSON a verdict: the digest of the test images' content, their number, what was judged
and by which bounds. The same file judged again by the same bounds adds no line: a cached or
repeated run is no second look. The file is the project's, to be committed; `make clean` leaves it.
A search adds a line for the recipe that it found, so that no fold of the same images judges it.

What the lines are worth: every bound holds with its own confidence, k of them on the same images
together with 1 - k (1 - confidence) at least (Bonferroni).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from fettle.errors import FettleError, ProjectError
from fettle.facts.typed_document import TypedDocument
from fettle.facts.verdict_facts import RowsLedger

NAME = "verdicts.jsonl"
# How long a step trains is no other recipe.
LENGTHS = ("epochs", "recover_epochs", "learning_rate")


class LedgerLine(TypedDocument):
    """One line: a verdict on `images` test images (`rows`, their digest) of `model` by `bounds`; or
    a recipe (`recipe`, its key) that a search found on the data (`data`, the source's digest).
    """

    kind: Literal["verdict", "search"]
    rows: str = ""
    images: int = 0
    model: str = ""
    bounds: str = ""
    data: str = ""
    recipe: str = ""


def place(project: Path) -> Path:
    """Return where the ledger lies: beside the project's params.yaml, a workspace's too."""
    return Path(os.environ.get("FETTLE_ROOT", project)) / NAME


def digest_rows(images: Iterable[str]) -> str:
    """Digest test images by the sha256 of each one's bytes: names and order play no part."""
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()


def digest_json(value: object) -> str:
    """Digest a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def recipe_key(recipe: Sequence[Mapping[str, JsonValue]]) -> str:
    """Digest what a recipe does, whatever it trains for."""
    bare = [{k: v for k, v in step.items() if k not in LENGTHS} for step in recipe]
    return digest_json(bare)


def read(file: Path) -> list[LedgerLine]:
    """Read the lines; none where there is no file yet.

    Raises ProjectError for a line that is none: a look that cannot be read is not forgotten.
    """
    if not file.is_file():
        return []
    lines, number = list[LedgerLine](), 0
    try:
        for text in file.read_text(encoding="utf-8").splitlines():
            number += 1
            if text.strip():
                lines.append(LedgerLine.from_json(json.loads(text), file))
    except (OSError, ValueError, FettleError) as err:
        raise ProjectError(
            f"{NAME} cannot be read",
            got=f"line {number}: {str(err).splitlines()[0]}",
            rule="it says, a line of JSON each, how often the test images have judged",
            fix="take it back from git, or mend that line; of a merge keep the lines of both sides",
        ) from err
    return lines


def append(file: Path, line: LedgerLine) -> None:
    """Add a line that the file does not have yet, whole and on the disk."""
    if line in read(file):
        return
    text = json.dumps(line.to_object(), sort_keys=True) + "\n"
    before = file.read_bytes() if file.is_file() else b""
    gap = "" if not before or before.endswith(b"\n") else "\n"
    with file.open("ab") as handle:
        handle.write((gap + text).encode())
        handle.flush()
        os.fsync(handle.fileno())


def of_rows(lines: Iterable[LedgerLine], rows: str) -> list[LedgerLine]:
    """Select the verdicts on these test images, each once, in order."""
    verdicts = (line for line in lines if line.kind == "verdict" and line.rows == rows)
    return list(dict.fromkeys(verdicts))


def count(lines: Sequence[LedgerLine], rows: str) -> RowsLedger:
    """Count the verdicts on these test images, and the models that they judged."""
    found = of_rows(lines, rows)
    return RowsLedger(rows=rows, verdicts=len(found), models=len({line.model for line in found}))


def found_by_search(
    lines: Iterable[LedgerLine], recipe: Sequence[Mapping[str, JsonValue]], data: str
) -> bool:
    """Tell whether a search on this data found the recipe, however long it trained."""
    key = recipe_key(recipe)
    return any(line.kind == "search" and (line.data, line.recipe) == (data, key) for line in lines)
