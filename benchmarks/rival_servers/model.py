"""Answer as the release does, in plain numpy and ONNX Runtime: what every rival server wraps.

Runs in the rivals' environments, without fettle: preprocessing, softmax and the best five are
written again here, and the benchmark compares the answers before it measures.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

TOP = 5
Answer = dict[str, object]


class Model:
    """The model of a release folder (FETTLE_RELEASE unless given), one thread."""

    def __init__(self, release: str | None = None) -> None:
        folder = Path(release or os.environ["FETTLE_RELEASE"])
        stated = json.loads((folder / "release.json").read_text())
        self.labels = json.loads((folder / "labels.json").read_text())
        self.pre = json.loads((folder / "preprocess.json").read_text())
        self.softmax = stated["output"]["kind"] == "logits"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / stated["runtime"]["entry"]), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def __call__(self, images: npt.ArrayLike) -> list[Answer]:
        """Answer uint8 [N, H, W] (one channel) of the model's own size."""
        pixels = np.asarray(images, dtype=np.uint8)[:, None]
        scale = np.float32(1 / (255 * self.pre["std"]))
        floats = (pixels * scale - np.float32(self.pre["mean"] / self.pre["std"])).astype("float32")
        (rows,) = self.session.run(None, {self.input: floats})
        rows = rows.astype(np.float64)
        if self.softmax:
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows /= rows.sum(axis=1, keepdims=True)
        order = np.argsort(-rows, axis=1, kind="stable")[:, :TOP]
        answers = []
        for row, best in zip(rows, order, strict=True):
            top = [{"label": self.labels[at], "probability": float(row[at])} for at in best]
            answers.append({**top[0], "top": top})
        return answers
