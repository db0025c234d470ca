"""Sessions to run a graph while it is quantized: one thread, every optimisation, no warnings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession


def load(proto: ModelProto) -> InferenceSession:
    """Load a graph; one thread, so that it answers the same on any machine."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def watching(proto: ModelProto, names: Iterable[str]) -> InferenceSession:
    """Load a copy of the graph that can answer with the named tensors too."""
    watched = type(proto)()
    watched.CopyFrom(proto)
    present = {output.name for output in watched.graph.output}
    for name in names:
        if name not in present:
            watched.graph.output.add().name = name
    return load(watched)
