"""Weights in float16, computed in float32: half of the file, no calibration, next to no loss.

The first precision below fp32. Each weight of a Conv, Gemm or MatMul is stored in float16 behind a
Cast, which the runtime folds once, when it loads the file: it runs at fp32's speed. The nets of
docs/decisions/0012 changed 0.1, 0 and 0.1 % of their answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fettle.quantize import qdq_graph, weight_only

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto


def apply(model: Path, out: Path) -> qdq_graph.Coverage:
    """Write the ONNX `model` with float16 weights to `out`; same inputs, same bytes.

    `quantized` of the answer counts the operators whose weight is float16; one with a value beyond
    float16's largest, 65,504, stays float32. Raises ModelError when none is left, or the file
    cannot be folded.
    """
    proto, heavy, weights = weight_only.load_folded(model)
    stored = {name for name, tensor in weights.items() if _narrow(proto, tensor)}
    if not stored:
        which = "constant weights of at most 65,504"
        raise weight_only.no_weights_error(model, "float16", weights=which, targets="w16")
    covered = qdq_graph.weight_coverage(heavy, stored)
    weight_only.write_compact(proto, out)
    return covered


def _narrow(proto: ModelProto, tensor: TensorProto) -> bool:
    """Replace a weight by its float16 form and a Cast that answers to its name, if it fits."""
    from onnx import helper, numpy_helper

    name, array = tensor.name, np.asarray(numpy_helper.to_array(tensor))
    if not np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
        return False
    proto.graph.initializer.remove(tensor)
    half = numpy_helper.from_array(array.astype(np.float16), f"{name}_half")
    proto.graph.initializer.append(half)
    cast = helper.make_node("Cast", [half.name], [name], f"{name}_cast", to=tensor.FLOAT)
    proto.graph.node.insert(0, cast)
    return True
