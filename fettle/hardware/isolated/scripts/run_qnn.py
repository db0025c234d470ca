"""QNN: compile for Qualcomm's Hexagon and run in its x86 emulator, by worker_harness.py.

The model's batch is fixed at 1: a context binary has no free dimension. ONNX Runtime is kept from
running anything on the CPU, both when the context is made and when it is run.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnxruntime as ort

    Floats = npt.NDArray[np.float32]

PROVIDER = "QNNExecutionProvider"
CHIP = {"soc_model": "60", "htp_arch": "75"}  # Snapdragon X Elite
PLACED = "placement.json"


def toolkit() -> None:
    """Import what running takes."""
    import onnxruntime
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())


def dialect(model: str) -> dict[str, str]:
    """Say why Hexagon would misread an int8 ONNX, "" where it would not."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    for node in pairs:
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        kind = "uint8" if zero is None else str(numpy_helper.to_array(zero).dtype)
        if kind not in ("uint8", "uint16"):
            return {"refused": f"activations in {kind}"}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    answer = graph.output[0].name
    if pairs and makers.get(answer) != "DequantizeLinear":
        return {"refused": f"an answer in float behind {makers.get(answer, 'no operator')}"}
    return {"refused": ""}


def compile(model: str, out: str, entry: str) -> dict[str, str]:
    """Write `entry`, the context binary and placement.json of an ONNX to `out`."""
    import onnx

    proto = onnx.load(model)
    for value in (*proto.graph.input[:1], *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    # by a path of its own: the entry names the binary by the context's file name, no folder
    with tempfile.TemporaryDirectory(dir=".") as folder:
        fixed = Path(folder) / "fixed.onnx"
        onnx.save(proto, fixed)
        options = session_options(CHIP)
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_file_path", str(Path(out) / entry))
        session = load(str(fixed), options)
    placed, others = 0, []
    for part in session.get_provider_graph_assignment_info():
        nodes = part.get_nodes()
        if part.ep_name == PROVIDER:
            placed += len(nodes)
        else:
            others += [f"{node.op_type} {node.name}".strip() for node in nodes]
    counts = {"accelerator": placed, "other": sorted(others)}
    (Path(out) / PLACED).write_text(json.dumps(counts) + "\n")
    return {}


def session_options(chip: dict[str, str]) -> ort.SessionOptions:
    """Set what a session is made with: the emulated NPU, and nothing beside it."""
    import onnxruntime as ort
    import onnxruntime_qnn

    if not any(device.ep_name == PROVIDER for device in ort.get_ep_devices()):
        toolkit()
    devices = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    path = onnxruntime_qnn.get_qnn_htp_path()
    options.add_provider_for_devices(devices[:1], {"backend_path": path, **chip})
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def load(path: str, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load an ONNX; what the NPU lacks is named in the log, on stderr."""
    import onnxruntime as ort

    session = ort.InferenceSession(path, options)
    if session.get_providers()[0] != PROVIDER:
        raise RuntimeError(f"it was loaded by {', '.join(session.get_providers())}")
    return session


class HexagonModel:
    """A loaded context: float32 [1, C, H, W] → logits [1, classes]."""

    def __init__(self, entry: str) -> None:
        self._session = load(entry, session_options({}))
        first = self._session.get_inputs()[0]
        self._input, self.shape = first.name, list(first.shape)

    def __call__(self, batch: Floats) -> Floats:
        """Run a batch of one."""
        logits: Floats = self._session.run(None, {self._input: batch})[0]
        return logits


def open(entry: str, threads: int) -> HexagonModel:
    """Load a context binary in the emulator."""
    del threads
    return HexagonModel(entry)
