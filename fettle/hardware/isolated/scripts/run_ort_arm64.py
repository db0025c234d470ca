"""ONNX Runtime for arm64: load an ONNX and run it; in its emulated Python, by worker_harness.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

PROVIDER = "CPUExecutionProvider"


def toolkit() -> None:
    """Import what running takes."""
    import onnxruntime  # noqa: F401  its memory counts as the toolchain's


def compile(model: str, out: str, entry: str) -> dict[str, str]:
    """Copy an ONNX that loads here to `out`."""
    EmulatedModel(model, 1)
    shutil.copyfile(model, Path(out) / entry)
    return {}


class EmulatedModel:
    """A loaded model: float32 [N, C, H, W] → logits [N, classes]."""

    def __init__(self, entry: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(entry, options, providers=[PROVIDER])
        if self._session.get_providers() != [PROVIDER]:
            raise RuntimeError(f"it runs on {', '.join(self._session.get_providers())}")
        first = self._session.get_inputs()[0]
        self._input, self._output = first.name, self._session.get_outputs()[0].name
        self.shape = [size if isinstance(size, int) else None for size in first.shape]

    def __call__(self, batch: Floats) -> Floats:
        """Run a batch."""
        logits: Floats = self._session.run([self._output], {self._input: batch})[0]
        return logits


def open(entry: str, threads: int) -> EmulatedModel:
    """Load an ONNX file."""
    return EmulatedModel(entry, threads)
