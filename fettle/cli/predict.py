"""`fettle predict PHOTOS`: a release's answers to a folder, files or a table, without a server."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fettle.prediction.batch_prediction import PredictionTotals


def predict(
    images: Annotated[
        list[Path], typer.Argument(help="Folders, image files, Parquet or CSV files.")
    ],
    release: Annotated[
        str | None,
        typer.Option(help="A release's folder, or the start of its digest; the last if left out."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="The table: .parquet, .csv or .jsonl; written whole at the end.")
    ] = Path("predictions.parquet"),
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes, each with one thread.")
    ] = 1,
) -> None:
    """Answer every image as the server would; killed, the same command goes on.

    Example: fettle predict ~/photos --out predictions.csv --workers 2
    """
    from fettle.prediction import batch_prediction

    folder = find_release(release)
    started = time.monotonic()
    try:
        totals = batch_prediction.predict(
            images, folder, out, workers=workers, progress=_Progress(started)
        )
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        raise
    seconds = time.monotonic() - started
    text = f"{out}: {totals.images:,} images in {seconds:.1f} s"
    if totals.resumed:
        text += f", {totals.resumed:,} of them answered by an earlier run"
    if totals.failed:
        text += f"; {totals.failed:,} without an answer, see the column error"
    print(f"{text}. Release {folder.name}")


def find_release(named: str | None) -> Path:
    """Find a release: by its folder, the start of its digest, or the newest of this project.

    Raises ProjectError.
    """
    from fettle import project as projects
    from fettle.cli.serve import last_tag
    from fettle.errors import ProjectError
    from fettle.serving.release_bundle import RELEASE

    if named is not None and (Path(named) / RELEASE).is_file():
        return Path(named)
    if named is not None and Path(named).is_dir():
        raise ProjectError(
            f"{named} is no release",
            got=f"no {RELEASE} in it",
            fix="name a folder below releases/, or the start of its name",
        )
    home = projects.find()
    if named is None:
        return home.releases / last_tag(home).partition(":")[2]
    there = sorted(path.name for path in home.releases.glob("[!.]*") if path.is_dir())
    found = [name for name in there if name.startswith(named)]
    if len(found) != 1:
        raise ProjectError(
            f"--release {named}: {'several releases begin so' if found else 'no such release'}",
            got=", ".join(found or there) or "no release yet",
            rule="it is a release's folder, or the start of one name below releases/",
            fix="give more of the name" if found else "leave --release out, or run `fettle run`",
        )
    return home.releases / found[0]


class _Progress:
    """A line now and then on the terminal's error output."""

    EVERY_S = 5.0

    def __init__(self, started: float) -> None:
        self._started = self._last = started

    def __call__(self, totals: PredictionTotals) -> None:
        now = time.monotonic()
        if now - self._last > self.EVERY_S:
            self._last = now
            new = totals.images - totals.resumed
            print(
                f"  {totals.images:,} images, {new / (now - self._started):,.0f} a second",
                file=sys.stderr,
                flush=True,
            )
