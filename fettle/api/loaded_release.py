"""fettle.load: a release in this process, which answers as its server does.

The answers come from a worker process that runs the code which the release itself carries, the very
one of `fettle predict`: no other version of fettle, numpy or Pillow's resizing stands between.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

from fettle.api.image_encoding import encode
from fettle.errors import ProjectError, UserError
from fettle.prediction.prediction_inputs import InputImage
from fettle.prediction.worker_process import WorkerProcess
from fettle.serving import release_bundle

if TYPE_CHECKING:
    from fettle.api.compression_project import CompressedRelease

CHUNK_IMAGES = 128


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """A release's answer to one image, as the server's: the likeliest class first in `top`.

    `error` says why there is none; `label` and `probability` are None then.
    """

    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...]
    error: str | None = None


class LoadedRelease:
    """A verified release. `labels` are its classes in the model's order, `digest` names it.

    The worker starts at the first image, and ends with this object, or at `close()`.
    """

    def __init__(self, folder: Path) -> None:
        import json

        release, self.digest = release_bundle.verify(folder)
        self.folder = folder
        self.name = str(release["name"])
        self.labels: tuple[str, ...] = tuple(
            json.loads((folder / release_bundle.LABELS).read_text())
        )
        self._worker = WorkerProcess(folder)
        self._end = weakref.finalize(self, self._worker.__exit__)

    def __enter__(self) -> LoadedRelease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<release {self.name} {self.digest[:12]}, {len(self.labels)} classes>"

    def close(self) -> None:
        """End the worker process."""
        self._end()

    def predict(self, images: object) -> list[ImageAnswer]:
        """Answer images: one, or a list or stack of them; an answer each, in order.

        An image is a path, the bytes of a file, a Pillow image, an array or a tensor. Raises
        DataError for what is none of these; an image file that the server would refuse gets its
        reason as the answer's `error`.
        """
        return list(self.answers(_each(images)))

    def answers(self, images: Iterable[object]) -> Iterator[ImageAnswer]:
        """Answer images one after another, of which only a chunk is held in memory."""
        if not self._end.alive:
            raise UserError("the release is closed", fix="load it again: fettle.load(…)")
        numbered = enumerate(images)
        while chunk := list(islice(numbered, CHUNK_IMAGES)):
            encoded = [
                InputImage(str(index), encode(image, name=f"image {index}"))
                for index, image in chunk
            ]
            for row in self._worker.answer(encoded):
                top = cast(list[dict[str, object]], row["top"])
                yield ImageAnswer(
                    label=cast(str | None, row["label"]),
                    probability=cast(float | None, row["probability"]),
                    top=tuple((str(one["label"]), cast(float, one["probability"])) for one in top),
                    error=cast(str | None, row["error"]),
                )


def load(release: str | Path | CompressedRelease) -> LoadedRelease:
    """Load a release: its folder, a project's folder (its last one), or what compress returned.

    Raises ProjectError when there is none, TamperedError when a file of it was changed.
    """
    return LoadedRelease(find(release))


def find(release: object) -> Path:
    """Find a release's folder. Raises ProjectError."""
    folder = Path(getattr(release, "release", release)).expanduser().resolve()  # type: ignore[arg-type]  # anything: refused below
    if (folder / release_bundle.RELEASE).is_file():
        return folder
    if (folder / "params.yaml").is_file():
        from fettle.cli.serve import last_tag
        from fettle.project import Project

        project = Project(folder, folder)
        return project.releases / last_tag(project).partition(":")[2]
    raise ProjectError(
        f"{folder} is no release",
        got=f"no {release_bundle.RELEASE} in it" if folder.is_dir() else "no such folder",
        rule="it is a folder below releases/ of a project, or the project's own",
        fix="name that folder",
    )


def _each(images: object) -> Iterable[object]:
    """Tell one image from many: a list, a tuple, or an array with one dimension more."""
    if isinstance(images, str | Path | bytes | bytearray | memoryview) or hasattr(images, "mode"):
        return [images]
    shape = getattr(images, "shape", None)
    if shape is None:
        return cast(Iterable[object], images) if isinstance(images, Iterable) else [images]
    several = len(shape) == 4 or (len(shape) == 3 and not {shape[0], shape[-1]} & {1, 3})
    return cast(Iterable[object], images) if several else [images]
