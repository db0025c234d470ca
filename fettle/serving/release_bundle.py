"""Release bundle: a release folder loaded and verified: preprocessing, model, labels.

The folder is what stages/package.py writes, and what a Bento carries as its sources:

    release.json       schema, name, target, runtime, signature, and the digest of every other file
    preprocess.json    how an image becomes the input
    labels.json        class names in the model's order
    model/             the entry file, and what it refers to

Needs numpy, Pillow and the release's one runtime.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NotRequired, Protocol, TypedDict, cast

import numpy as np
import numpy.typing as npt

from fettle.errors import OurFault, ProjectError, TamperedError, UserError
from fettle.manifest import SHORT, digest_of, sha256_file
from fettle.preprocessing import Floats, Pixels, Preprocess

RELEASE = "release.json"
PREPROCESS = "preprocess.json"
LABELS = "labels.json"
SCHEMA = "fettle.release/1"
DECIMALS = 6
BATCH_MAX = 32  # more in one run gains no speed, and 256 images of 224 px would take gigabytes

Probabilities = npt.NDArray[np.float64]


class Runs(Protocol):
    """A loaded model: logits (or probabilities) float32 [N, classes] of float32 [N, C, S, S]."""

    def run(self, batch: Floats) -> Floats: ...


class ReleaseRuntime(TypedDict):
    """What runs the model: a file in fettle/hardware/runtimes, the file it opens, its threads."""

    name: str
    entry: str
    threads: NotRequired[int]  # a release made before it was stated runs with one


class ReleaseOutput(TypedDict):
    """What the model answers with: "logits" or "probabilities"."""

    kind: str


class ReleaseFacts(TypedDict):
    """What of release.json the server reads; it has more."""

    schema: str
    name: str
    runtime: ReleaseRuntime
    output: ReleaseOutput
    files: dict[str, str]


class RankedAnswer(NamedTuple):
    """The likeliest classes of one image, likeliest first: their numbers and probabilities."""

    classes: list[int]
    probabilities: list[float]


@dataclass(frozen=True, slots=True)
class ReleaseBundle:
    """A verified, loaded release. `digest` identifies the folder; `release` is its release.json."""

    digest: str
    release: ReleaseFacts
    preprocess: Preprocess
    labels: tuple[str, ...]
    session: Runs

    def predict(self, pixels: Pixels) -> Probabilities:
        """Return the probabilities [N, classes] of uint8 [N, C, S, S]."""
        parts = [pixels[at : at + BATCH_MAX] for at in range(0, len(pixels), BATCH_MAX)]
        logits = [self.session.run(self.preprocess.normalise(part)) for part in parts]
        rows = np.concatenate(logits).astype(np.float64)
        if rows.shape != (len(pixels), len(self.labels)):
            raise OurFault(
                "the model's answer does not fit the labels",
                got=f"shape {list(rows.shape)}",
                rule=f"{len(pixels)} images and {len(self.labels)} labels",
            )
        return rows if self.release["output"]["kind"] == "probabilities" else softmax(rows)

    def rank(self, pixels: Pixels, *, most: int) -> list[RankedAnswer]:
        """Return the `most` likeliest classes of each image, likeliest first.

        Probabilities have DECIMALS decimals: float32 logits carry no more, and they are written
        in half the time.
        """
        chances = self.predict(pixels)
        order = np.argsort(-chances, axis=1, kind="stable")[:, :most]
        best = np.take_along_axis(chances, order, axis=1).round(DECIMALS)
        return list(map(RankedAnswer, order.tolist(), best.tolist()))

    def warm_up(self) -> None:
        """Answer once, so that the first caller does not pay for the runtime's own set-up."""
        one = (1, self.preprocess.channels, self.preprocess.size_px, self.preprocess.size_px)
        self.predict(np.zeros(one, dtype=np.uint8))


def load(folder: Path) -> ReleaseBundle:
    """Verify `folder` and load its model with the threads that its latency was taken with.

    Raises ProjectError when it is no release, TamperedError when a file is missing or changed,
    UserError when it was written by a newer fettle.
    """
    release, digest = verify(folder)
    preprocess = json.loads((folder / PREPROCESS).read_text())
    labels = json.loads((folder / LABELS).read_text())
    runtime = importlib.import_module(f"fettle.hardware.runtimes.{release['runtime']['name']}")
    threads = release["runtime"].get("threads", 1)
    session = runtime.open(folder / release["runtime"]["entry"], threads=threads)
    return ReleaseBundle(digest, release, Preprocess(**preprocess), tuple(labels), session)


def verify(folder: Path) -> tuple[ReleaseFacts, str]:
    """Hash every file that release.json lists; return its content and the release's digest.

    Files it does not list (a bytecode cache, what BentoML adds) are not looked at: nothing reads
    them. The digest equals `manifest.tree_digest` of the folder as it was packaged.
    """
    path = folder / RELEASE
    if not path.is_file():
        raise ProjectError(
            f"{folder} is no release",
            got=f"no {RELEASE} in it",
            fix="serve a folder below releases/, or a Bento that `fettle run` built",
        )
    release = _read_release(path)
    if release.get("schema") != SCHEMA:
        raise UserError(
            f"{path} has another schema than this code reads",
            got=str(release.get("schema")),
            rule=f"it must be {SCHEMA}",
            fix="serve it with the version of fettle that packaged it",
        )
    for name, expected in sorted(release["files"].items()):
        file = folder / name
        found = sha256_file(file) if file.is_file() else None
        if found != expected:
            raise TamperedError(
                f"{name} of the release is {'changed' if found else 'missing'}",
                got=found[:SHORT] if found else "no file",
                rule=f"it must match the digest in {RELEASE} ({expected[:SHORT]})",
                fix="do not serve it; run `fettle run`, which packages it again",
            )
    return release, digest_of({**release["files"], RELEASE: sha256_file(path)})


def _read_release(path: Path) -> ReleaseFacts:
    try:
        release = json.loads(path.read_text())
    except ValueError as err:
        raise TamperedError(
            f"{path} cannot be read",
            got=str(err),
            rule="it is one JSON object",
            fix="do not serve it; run `fettle run`, which packages it again",
        ) from err
    return cast(ReleaseFacts, release if isinstance(release, dict) else {})


def softmax(logits: npt.NDArray[np.float64]) -> Probabilities:
    """Turn logits [N, classes] into probabilities; shifted by the row's maximum: no overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
