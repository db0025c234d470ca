"""Seeded faults: silent mistakes put into a model or a target's file before it is judged.

Each takes the ONNX that a target's toolchain gets (or the file that it made) and writes a wrong one
that still loads, runs and answers: what no exit code tells. None means that it does not apply.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

Array = npt.NDArray[np.float32 | np.int8 | np.uint8 | np.int32 | np.int64]
MEAN, STD = 0.485, 0.229  # ImageNet's first channel, in place of this project's 0.5 and 0.5
ZERO_POINT_OFF = 32
KEPT_SHARE = 0.9  # of a truncated file


@dataclass(frozen=True, slots=True)
class ModelFault:
    """A fault of the ONNX: `seed` changes it in place, and says whether it applies."""

    name: str
    seed: Callable[[ModelProto], bool]


def initialisers(model: ModelProto) -> dict[str, Array]:
    """Return the model's weights by name."""
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def replace(model: ModelProto, name: str, value: Array) -> None:
    """Give a weight another value."""
    at = next(n for n, one in enumerate(model.graph.initializer) if one.name == name)
    model.graph.initializer[at].CopyFrom(numpy_helper.from_array(value, name))


def first_input(model: ModelProto) -> str:
    """Return the name of the images' input."""
    known = {one.name for one in model.graph.initializer}
    return str(next(one.name for one in model.graph.input if one.name not in known))


def before_input(model: ModelProto, *nodes: NodeProto) -> None:
    """Put nodes between the images and the network; the last one's output is "seeded"."""
    given = first_input(model)
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if name == given:
                node.input[at] = "seeded"
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])


def constant(model: ModelProto, name: str, value: Array) -> str:
    """Add a weight; return its name."""
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def wrong_mean(model: ModelProto) -> bool:
    """Normalise by ImageNet's mean and deviation what was trained with 0.5 and 0.5."""
    given = first_input(model)
    scale = constant(model, "seed_scale", np.array(0.5 / STD, np.float32))
    shift = constant(model, "seed_shift", np.array((0.5 - MEAN) / STD, np.float32))
    before_input(
        model,
        helper.make_node("Mul", [given, scale], ["seed_scaled"]),
        helper.make_node("Add", ["seed_scaled", shift], ["seeded"]),
    )
    return True


def transposed_input(model: ModelProto) -> bool:
    """Take the image's rows for its columns."""
    given = first_input(model)
    before_input(model, helper.make_node("Transpose", [given], ["seeded"], perm=[0, 1, 3, 2]))
    return True


def wrong_label_order(model: ModelProto) -> bool:
    """Give the logits in another order of the classes."""
    out = model.graph.output[0]
    classes = out.type.tensor_type.shape.dim[1].dim_value
    if not classes:
        return False
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == out.name:
                node.output[at] = "seed_logits"
    order = constant(model, "seed_order", np.roll(np.arange(classes), 1))
    node = helper.make_node("Gather", ["seed_logits", order], [out.name], axis=1)
    model.graph.node.append(node)
    return True


def convolution_weights(model: ModelProto) -> list[str]:
    """List the stored weights of the convolutions, behind their DequantizeLinear where int8."""
    held = initialisers(model)
    made = {node.output[0]: node for node in model.graph.node}
    names = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            source = made.get(node.input[1])
            name = source.input[0] if source is not None else node.input[1]
            names += [name] if name in held else []
    return names


def swapped_channels(model: ModelProto) -> bool:
    """Read the input channels of a convolution in reverse (RGB as BGR, NHWC as NCHW)."""
    held = initialisers(model)
    for name in convolution_weights(model):
        if held[name].shape[1] > 1:
            replace(model, name, np.ascontiguousarray(held[name][:, ::-1]))
            return True
    return False


def quantized_weights(model: ModelProto) -> list[NodeProto]:
    """List the DequantizeLinear nodes whose data is stored int8 of more than one dimension."""
    held = initialisers(model)
    return [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in held
        and held[node.input[0]].dtype == np.int8
        and held[node.input[0]].ndim > 1
    ]


def store_anew(model: ModelProto, node: NodeProto, weights: Array, scales: Array) -> None:
    """Store a layer's weights on other scales, and its bias with them, as a quantizer would."""
    held = initialisers(model)
    change = held[node.input[1]].astype(np.float32) / scales.astype(np.float32)
    replace(model, node.input[0], weights)
    replace(model, node.input[1], scales.astype(np.float32))
    made = {one.output[0]: one for one in model.graph.node}
    for layer in model.graph.node:
        if len(layer.input) > 2 and layer.input[1] == node.output[0]:
            bias = made.get(layer.input[2])
            if bias is not None and bias.input[0] in held:
                stored = np.round(held[bias.input[0]] * change).astype(np.int32)
                told = held[bias.input[1]].astype(np.float32) / change
                replace(model, bias.input[0], stored)
                replace(model, bias.input[1], told.astype(np.float32))


def per_tensor_weights(model: ModelProto) -> bool:
    """Store every channel's weights on the scale of the widest one."""
    held, done = initialisers(model), False
    for node in quantized_weights(model):
        weights, scales = held[node.input[0]], held[node.input[1]].astype(np.float64)
        if scales.ndim != 1 or len(scales) < 2:
            continue
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        shape = [-1 if at == axis else 1 for at in range(weights.ndim)]
        coarse = np.round(weights * (scales / scales.max()).reshape(shape)).astype(np.int8)
        store_anew(model, node, coarse, np.full(len(scales), scales.max(), np.float32))
        done = True
    return done


def wrong_zero_point(model: ModelProto) -> bool:
    """Read the activations of one layer from another zero point than they were written with."""
    held = initialisers(model)
    reading = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in held
    ]
    if not reading:
        return False
    node = reading[len(reading) // 2]
    zero = held[node.input[2]] if len(node.input) > 2 else np.array(0, np.uint8)
    span = np.iinfo(str(zero.dtype))
    value = int(zero) + (ZERO_POINT_OFF if int(zero) < span.max - ZERO_POINT_OFF else -48)
    node.input[2] = constant(model, "seed_zero_point", np.array(value, zero.dtype))
    return True


def wrapped_weights(model: ModelProto) -> bool:
    """Let fixed-point weights wrap where they ought to saturate: one integer bit too few."""
    held, done = initialisers(model), False
    for node in quantized_weights(model):
        doubled = held[node.input[0]].astype(np.int16) * 2
        halved = (held[node.input[1]].astype(np.float32) / 2).astype(np.float32)
        store_anew(model, node, doubled.astype(np.int8), halved)  # modulo 256
        done = True
    return done


def unsupported_operator(model: ModelProto) -> bool:
    """Put an operator beside the network that no accelerator runs; the answers stay."""
    given = first_input(model)
    tiny = constant(model, "seed_tiny", np.array(1e-4, np.float32))
    before_input(
        model,
        helper.make_node("Sin", [given], ["seed_sine"]),
        helper.make_node("Mul", ["seed_sine", tiny], ["seed_small"]),
        helper.make_node("Add", [given, "seed_small"], ["seeded"]),
    )
    return True


MODEL_FAULTS = (
    ModelFault("wrong zero point", wrong_zero_point),
    ModelFault("per-tensor weights", per_tensor_weights),
    ModelFault("wrapped fixed point", wrapped_weights),
    ModelFault("swapped channels", swapped_channels),
    ModelFault("wrong mean", wrong_mean),
    ModelFault("transposed input", transposed_input),
    ModelFault("wrong label order", wrong_label_order),
)
FALLBACK = ModelFault("one operator on the CPU", unsupported_operator)


def seeded(fault: ModelFault, model: Path, out: Path) -> bool:
    """Write `model` with the fault to `out`; False where it does not apply."""
    proto = onnx.load(str(model))
    if not fault.seed(proto):
        return False
    onnx.save(proto, str(out))
    return True


def truncated(entry: Path, out: Path) -> None:
    """Copy the first part of a file, as a full disk or a cut link leaves it."""
    shutil.copyfile(entry, out)
    with out.open("r+b") as file:
        file.truncate(int(entry.stat().st_size * KEPT_SHARE))
