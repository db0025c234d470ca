"""Worker process of batch prediction: answers with the code and the model of one release.

    python release_worker.py RELEASE

The release's own sources come first on the path, so preprocessing, ranking and the reasons for a
refusal are those of the server in it, whatever version of fettle started this. Standard input: a
chunk is the line `[size, size, …]` and then that many bytes each; standard output: one line a
chunk, a JSON array of {"top": [[label, probability], …]} or {"error": reason}, in order.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from fettle.preprocessing import Pixels
    from fettle.serving.release_bundle import ReleaseBundle

TOP = 5  # as many classes as the server's answer has (fettle/serving/predict_route.py)


def main() -> None:
    """Load the release, say "ready", and answer chunk by chunk until the input ends."""
    release = Path(sys.argv[1])
    own = str(Path(__file__).parent)  # which Python puts first, and whose modules are no top-level
    sys.path[:] = [place for place in sys.path if place != own]
    if (release / "fettle" / "__init__.py").is_file():
        sys.path.insert(0, str(release))
    from fettle.serving import release_bundle

    # what a library prints must not stand between the answers
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    loaded = release_bundle.load(release)
    answers.write(b"ready\n")
    answers.flush()
    while line := sys.stdin.buffer.readline():
        encoded = [_exactly(sys.stdin.buffer, size) for size in json.loads(line)]
        answers.write(json.dumps(predict(loaded, encoded)).encode() + b"\n")
        answers.flush()


def predict(loaded: ReleaseBundle, encoded: list[bytes]) -> list[dict[str, object]]:
    """Answer each image; one that cannot be read, or fails in the model, gets its reason."""
    from fettle.serving import image_request

    answers: list[dict[str, object]] = [{} for _ in encoded]
    readable: list[tuple[int, Pixels]] = []
    for index, data in enumerate(encoded):
        try:
            readable.append((index, image_request.from_files([data], loaded.preprocess)))
        except image_request.BadRequest as err:
            answers[index] = {"error": str(err)}
        except MemoryError:
            answers[index] = {"error": "the image needs more memory than there is"}
    for index, top in _ranked(loaded, readable):
        answers[index] = top
    return answers


def _ranked(
    loaded: ReleaseBundle, readable: list[tuple[int, Pixels]]
) -> list[tuple[int, dict[str, object]]]:
    """Rank all images at once; one by one where that fails, so that a bad one fails alone."""
    import numpy as np

    if not readable:
        return []
    try:
        rows = loaded.rank(np.concatenate([pixels for _, pixels in readable]), most=TOP)
    except Exception as err:  # the runtime's: anything may come out of it
        if len(readable) > 1:
            return [found for one in readable for found in _ranked(loaded, [one])]
        return [(readable[0][0], {"error": f"the model failed: {type(err).__name__}: {err}"})]
    return [
        (
            index,
            {"top": [[loaded.labels[at], chance] for at, chance in zip(*best, strict=True)]},
        )
        for (index, _), best in zip(readable, rows, strict=True)
    ]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        sys.exit(0)  # who asked is gone
    return data


if __name__ == "__main__":
    main()
