"""hls4ml: an ONNX as C++ for an FPGA, and that C++ compiled and run here; by worker_harness.py.

The simulation computes with the same fixed-point types as the circuit, bit by bit. Integer bits
come from the ranges that calibration images show in every tensor; fraction bits are the fewest of
FRACTIONS with which the answers to those images stay. Overflow would wrap without a word: 16 bits
with 4 before the point kept 40 % of a small CNN's answers.
"""

from __future__ import annotations

import ctypes
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    from qonnx.core.modelwrapper import ModelWrapper

    Floats = npt.NDArray[np.float32]

FRACTIONS = (4, 6, 8, 10, 12)
WITHOUT_IMAGES = (32, 14)  # wide enough for float32's answers to four digits
KEPT_MIN, COSINE_MIN = 0.99, 0.99
LIBRARY = "simulation.so"
REUSE = 64  # times that one multiplier is used for one image


def toolkit() -> None:
    """Import what running takes: nothing of hls4ml, the simulation is a library of its own."""


def compile(model: str, out: str, entry: str, part: str, images: str) -> dict[str, str]:
    """Write `entry`, the C++ project and the compiled simulation of an ONNX to `out`."""
    import numpy as np

    proto = fixed_batch(model)
    if not images:
        attempts, batch = [WITHOUT_IMAGES], None
    else:
        batch = np.load(images)
        integer = integer_bits(proto, batch)
        attempts = [(integer + fraction, integer) for fraction in FRACTIONS]
    tried = []
    for width, integer in attempts:
        about = build(proto, width, integer, part)
        simulation = FpgaSimulation(about, LIBRARY)
        kept, cosine = agreement(proto, simulation, batch) if batch is not None else (1.0, 1.0)
        tried.append({"width": width, "integer": integer, "kept": kept, "cosine": cosine})
        if kept >= KEPT_MIN and cosine >= COSINE_MIN:
            hand_over(about | {"tried": tried}, out, entry)
            return {}
    said = ", ".join(f"<{t['width']},{t['integer']}> {t['kept']:.1%}" for t in tried)
    raise RuntimeError(f"no width keeps {KEPT_MIN:.0%} of the answers: {said}")


def fixed_batch(model: str) -> onnx.ModelProto:
    """Read an ONNX, its batch fixed at 1 and each convolution's attributes stated."""
    import onnx

    proto = onnx.load(model)
    for value in (*proto.graph.input[:1], *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    weights = {tensor.name: tensor.dims for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Conv":
            kernel = list(weights[node.input[1]])[2:]
            ones, none = [1] * len(kernel), [0] * 2 * len(kernel)
            default = {"kernel_shape": kernel, "strides": ones, "dilations": ones, "pads": none}
            given = {attribute.name for attribute in node.attribute}
            for name, value in ({"group": 1} | default).items():
                if name not in given:
                    node.attribute.append(onnx.helper.make_attribute(name, value))
    return proto


def integer_bits(proto: onnx.ModelProto, batch: Floats) -> int:
    """Count the bits before the point that the largest value of any tensor takes, sign included."""
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import numpy_helper

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    known = {value.name for value in watched.graph.output}
    for node in watched.graph.node:
        watched.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in node.output if name not in known
        )
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    values = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    name = session.get_inputs()[0].name
    for at in range(min(len(batch), 64)):
        values += session.run(None, {name: batch[at : at + 1]})
    largest = max(
        float(np.abs(v).max()) for v in [*values, batch] if v.dtype == np.float32 and v.size
    )
    return max(2, math.ceil(math.log2(max(largest, 1e-6) * 1.25)) + 1)


def build(proto: onnx.ModelProto, width: int, integer: int, part: str) -> dict[str, object]:
    """Write the C++ project in ./project and its library beside; return what is known of it."""
    import hls4ml

    wrapped = channels_last(proto)
    kind = f"ap_fixed<{width},{integer}>"
    config = hls4ml.utils.config_from_onnx_model(
        wrapped,
        granularity="name",
        backend="Vitis",
        default_precision=kind,
        default_reuse_factor=REUSE,
    )
    config["Model"]["Strategy"] = "Resource"  # unrolled, it aborts above a few thousand weights
    for layer in config["LayerName"].values():
        layer["Strategy"] = "Resource"
    shutil.rmtree("project", ignore_errors=True)
    project = hls4ml.converters.convert_from_onnx_model(
        wrapped,
        hls_config=config,
        io_type="io_stream",
        output_dir="project",
        backend="Vitis",
        part=part,
    )
    project.write()
    build_library(Path("project"))
    (library,) = Path("project/firmware").glob("*.so")
    library.replace(LIBRARY)
    sizes = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    classes = proto.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    return {"shape": sizes, "classes": classes, "type": kind, "width": width, "part": part}


def build_library(project: Path) -> None:
    """Compile the C++; its weights are read from ./project wherever it is run, not from here."""
    script = project / "build_lib.sh"
    lines = script.read_text().splitlines()
    place = 'WEIGHTS_DIR="\\"project/firmware/weights\\""'
    lines = [place if line.startswith("WEIGHTS_DIR=") else line for line in lines]
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["bash", script.name], cwd=project, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise RuntimeError(f"g++: {(errors or ['no message'])[0][:300]}")


def channels_last(proto: onnx.ModelProto) -> ModelWrapper:
    """Bring the graph into the form that hls4ml reads."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul
    from qonnx.util.cleanup import cleanup_model

    wrapped = cleanup_model(ModelWrapper(proto))
    wrapped = wrapped.transform(ConvertToChannelsLastAndClean()).transform(GemmToMatMul())
    return cleanup_model(wrapped)


def agreement(
    proto: onnx.ModelProto, simulation: FpgaSimulation, batch: Floats
) -> tuple[float, float]:
    """Compare with the float answers: the share of winners that stay, the least cosine."""
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: batch[i : i + 1]})[0] for i in range(len(batch))]
    wanted, found = np.concatenate(rows), simulation(batch)
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (wanted * found).sum(axis=1) / np.maximum(norms, 1e-30)
    kept = (wanted.argmax(axis=1) == found.argmax(axis=1)).mean()
    return float(kept), float(np.median(cosines))


def hand_over(about: dict[str, object], out: str, entry: str) -> None:
    """Put the project, the simulation and what is known of it into `out`."""
    place = Path(out) / "project"
    leave = shutil.ignore_patterns("*.so", "hls4ml_config.yml", "tb_data")  # paths, test data
    shutil.copytree("project", place, ignore=leave)
    shutil.copyfile(LIBRARY, Path(out) / LIBRARY)
    (Path(out) / entry).write_text(json.dumps(about, indent=1) + "\n")


class FpgaSimulation:
    """The compiled simulation: float32 [N, C, H, W] → logits [N, classes]."""

    def __init__(self, about: dict[str, object], library: str) -> None:
        self.shape = list(about["shape"])  # type: ignore[call-overload] # JSON
        self._classes = int(about["classes"])  # type: ignore[call-overload] # JSON
        copy = Path(f"loaded-{about['width']}.so")  # a library is loaded once by its path
        shutil.copyfile(library, copy)
        self._run = ctypes.CDLL(str(copy.resolve())).myproject_float

    def __call__(self, batch: Floats) -> Floats:
        """Run a batch, image by image."""
        import numpy as np

        pointer = ctypes.POINTER(ctypes.c_float)
        answers: Floats = np.zeros((len(batch), self._classes), np.float32)
        for image, answer in zip(batch, answers, strict=True):
            last = np.ascontiguousarray(image.transpose(1, 2, 0))
            self._run(last.ctypes.data_as(pointer), answer.ctypes.data_as(pointer))
        return answers


def open(entry: str, threads: int) -> FpgaSimulation:
    """Load a compiled simulation; it runs on one thread."""
    del threads
    weights = Path("project/firmware/weights")
    shutil.copytree(Path(entry).parent / weights, weights, dirs_exist_ok=True)
    return FpgaSimulation(json.loads(Path(entry).read_text()), str(Path(entry).with_name(LIBRARY)))
