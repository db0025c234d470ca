"""LiteRT: an ONNX to a TFLite file, float or int8, and run it; in its own environment.

By worker_harness.py. The file is converted by the modules beside this one (onnx_to_tflite.py,
tflite_quantization.py), which a release does not need. It takes images with the channels last, as
cameras and phones have them; here they are turned on the way in.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


def toolkit() -> None:
    """Import what running takes."""
    import ai_edge_litert.interpreter  # noqa: F401  its memory counts as the toolchain's


def compile(model: str, out: str, calibration: str = "", free_batch: bool = True) -> dict[str, str]:
    """Write the TFLite file of an ONNX to `out`, int8 where `calibration` names a file of images.

    With `free_batch` its batch is free where all its operators allow that, else it takes one image.
    """
    import numpy as np

    os.environ["TQDM_DISABLE"] = "1"  # the quantizer's bars, on stderr
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    convert = importlib.import_module("scripts.onnx_to_tflite").convert
    written = Path("float.tflite") if calibration else Path(out)
    try:
        convert(Path(model), written, free_batch=free_batch, for_int8=bool(calibration))
    except ValueError:
        convert(Path(model), written, free_batch=False, for_int8=bool(calibration))
    if calibration:
        images = np.load(calibration).transpose(0, 2, 3, 1)
        quantize = importlib.import_module("scripts.tflite_quantization").quantize
        quantize(written, Path(out), np.ascontiguousarray(images))
    return {}


class TfliteModel:
    """A loaded TFLite file: float32 [N, C, H, W] → logits [N, classes]."""

    def __init__(self, entry: str, threads: int, *, reference: bool = False) -> None:
        from ai_edge_litert import interpreter as litert

        kind = litert.OpResolverType
        self._interpreter = litert.Interpreter(
            entry,
            num_threads=threads,
            experimental_op_resolver_type=kind.BUILTIN_REF if reference else kind.AUTO,
        )
        self._interpreter.allocate_tensors()
        (self._source,) = self._interpreter.get_input_details()
        (self._answer,) = self._interpreter.get_output_details()
        batch, height, width, channels = (int(size) for size in self._source["shape"])
        self._size = batch
        free = int(self._source["shape_signature"][0]) == -1
        self.shape = [None if free else batch, channels, height, width]

    def __call__(self, batch: Floats) -> Floats:
        """Run a batch; an integer input is rounded to, an integer answer scaled back."""
        import numpy as np

        if len(batch) != self._size:
            shape = (len(batch), *(int(size) for size in self._source["shape"][1:]))
            self._interpreter.resize_tensor_input(self._source["index"], shape)
            self._interpreter.allocate_tensors()
            self._size = len(batch)
        images = batch.transpose(0, 2, 3, 1)
        scale, zero = self._source["quantization"]
        if scale:
            kind = np.iinfo(self._source["dtype"])
            steps = np.rint(images / np.float32(scale)) + np.float32(zero)
            images = np.clip(steps, kind.min, kind.max).astype(self._source["dtype"])
        self._interpreter.set_tensor(self._source["index"], np.ascontiguousarray(images))
        self._interpreter.invoke()
        answer = self._interpreter.get_tensor(self._answer["index"])
        scale, zero = self._answer["quantization"]
        if scale:
            answer = (answer.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        logits: Floats = answer
        return logits


def open(entry: str, threads: int) -> TfliteModel:
    """Load a TFLite file with XNNPACK, LiteRT's kernels for CPUs."""
    return TfliteModel(entry, threads)
