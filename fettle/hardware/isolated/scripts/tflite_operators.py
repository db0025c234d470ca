"""TFLite operators of ONNX's: one function a kind, in the table at the end.

What mixes axes takes ONNX's own order, or has its axes translated where the channels are last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .onnx_attributes import Untranslatable, attributes
from .tflite_activations import (
    Translate,
    activation,
    elementwise,
    elu,
    gelu,
    leaky,
    prelu,
    softmax,
)
from .tflite_convolutions import convolution, pad, pool, transposed_convolution

if TYPE_CHECKING:
    from onnx import NodeProto

    from .tflite_layout import TfliteLayout

PLACES = (0, 3, 1, 2)  # where ONNX's axes of four are once the channels are last


def dense(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Gemm and MatMul: FULLY_CONNECTED by constant weights, else BATCH_MATMUL."""
    given = attributes(node)
    weight = layout.constant(node.input[1])
    if weight is None:
        if node.op_type != "MatMul" or len(layout.shape(node.input[0])) < 3:
            raise Untranslatable("weights that are computed")
        both = (layout.plain(node.input[0]), layout.plain(node.input[1]))
        made = schema.BatchMatMulOptionsT()
        layout.emit("BATCH_MATMUL", both, node.output[0], made, last=False)
        return
    if weight.ndim != 2 or given.get("transA"):
        raise Untranslatable("weights of another rank than two, or a transposed input")
    rows = weight if given.get("transB") else weight.T
    rows = (rows * np.float32(given.get("alpha", 1.0))).astype(np.float32)
    name = node.input[2] if len(node.input) > 2 else ""
    bias = layout.constant(name) if name else np.zeros(len(rows), np.float32)
    if bias is None or bias.size not in (1, len(rows)):
        raise Untranslatable("a bias that is computed, or one a row")
    added = np.resize(bias * np.float32(given.get("beta", 1.0)), len(rows)).astype(np.float32)
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims = len(layout.shape(node.input[0])) > 2
    inputs = (
        layout.plain(node.input[0]),
        layout.file.constant(node.input[1], rows),
        layout.file.constant(name or f"{node.output[0]}_bias", added),
    )
    layout.emit("FULLY_CONNECTED", inputs, node.output[0], options, last=False)


def batch_normalization(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate BatchNormalization that no convolution took in: a product and a sum a channel."""
    tables = [layout.constant(name) for name in node.input[1:5]]
    scale, shift, mean, variance = (table for table in tables if table is not None)
    epsilon = float(attributes(node).get("epsilon", 1e-5))
    factor = np.asarray(scale / np.sqrt(variance + epsilon), np.float32)
    added = np.asarray(shift - mean * factor, np.float32)
    last = len(layout.shape(node.input[0])) == 4
    if not last and len(layout.shape(node.input[0])) != 2:
        raise Untranslatable("another rank than two or four")
    source = layout.last(node.input[0]) if last else layout.plain(node.input[0])
    by = layout.file.constant(node.input[1], factor)
    plus = layout.file.constant(node.input[2], added)
    shape = layout.file.shape(source)
    product = layout.between("MUL", (source, by), source, shape, schema.MulOptionsT())
    layout.emit("ADD", (product, plus), node.output[0], schema.AddOptionsT(), last=last)


def layer_normalization(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate LayerNormalization over the last axis, step by step."""
    given = attributes(node)
    shape = layout.shape(node.input[0])
    if int(given.get("axis", -1)) % len(shape) != len(shape) - 1 or len(node.output) > 1:
        raise Untranslatable("more axes than the last, or a second answer")
    source = layout.plain(node.input[0])
    axis = layout.file.constant("axes", np.array([len(shape) - 1], np.int32))
    epsilon = layout.file.constant("epsilon", np.array(given.get("epsilon", 1e-5), np.float32))
    one = (*shape[:-1], 1)
    keeps = schema.ReducerOptionsT()
    keeps.keepDims = True
    mean = layout.between("MEAN", (source, axis), source, one, keeps)
    centred = layout.between("SUB", (source, mean), source, shape, schema.SubOptionsT())
    squares = layout.between("MUL", (centred, centred), source, shape, schema.MulOptionsT())
    variance = layout.between("MEAN", (squares, axis), source, one, keeps)
    raised = layout.between("ADD", (variance, epsilon), source, one, schema.AddOptionsT())
    inverse = layout.between("RSQRT", (raised,), source, one)
    scaled = layout.between("MUL", (centred, inverse), source, shape, schema.MulOptionsT())
    scale = layout.plain(node.input[1])
    if len(node.input) < 3 or not node.input[2]:
        layout.emit("MUL", (scaled, scale), node.output[0], schema.MulOptionsT(), last=False)
        return
    product = layout.between("MUL", (scaled, scale), source, shape, schema.MulOptionsT())
    inputs = (product, layout.plain(node.input[2]))
    layout.emit("ADD", inputs, node.output[0], schema.AddOptionsT(), last=False)


def reduce(code: str) -> Translate:
    """Return the translation of a reduction over constant axes."""

    def translate(layout: TfliteLayout, node: NodeProto) -> None:
        given = attributes(node)
        rank = len(layout.shape(node.input[0]))
        axes = given.get("axes")
        if len(node.input) > 1 and node.input[1]:
            table = layout.constant(node.input[1])
            axes = None if table is None else table.tolist()
        if node.op_type.startswith("Global"):
            axes, keeps = range(2, rank), True
        else:
            keeps = bool(given.get("keepdims", 1))
        axes = sorted(axis % rank for axis in (range(rank) if axes is None else axes))
        # with the channels last, what is left of four axes is in ONNX's order if the image is gone
        last = layout.is_last(node.input[0]) and (keeps or axes in ([2, 3], [1, 2, 3]))
        if last:
            axes = sorted(PLACES[axis] for axis in axes)
        source = layout.last(node.input[0]) if last else layout.plain(node.input[0])
        options = schema.ReducerOptionsT()
        options.keepDims = keeps
        constant = layout.file.constant("axes", np.array(axes, np.int32))
        layout.emit(code, (source, constant), node.output[0], options, last=last and keeps)

    return translate


def reshape(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Reshape, Flatten, Squeeze and Unsqueeze."""
    signature = layout.signature(node.output[0])
    if signature.count(-1) > 1:
        raise Untranslatable("two sizes that follow the batch")
    before = layout.shape(node.input[0])
    flat = len(before) == 4 and before[2:] == (1, 1)  # then the order of axes makes no difference
    last = flat and layout.is_last(node.input[0])
    source = layout.last(node.input[0]) if last else layout.plain(node.input[0])
    options = schema.ReshapeOptionsT()
    options.newShape = list(signature)
    sizes = layout.file.constant("sizes", np.array(signature, np.int32))
    layout.emit("RESHAPE", (source, sizes), node.output[0], options, last=False)


def transpose(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Transpose."""
    rank = len(layout.shape(node.input[0]))
    order = attributes(node).get("perm", tuple(reversed(range(rank))))
    axes = layout.file.constant("axes", np.array(order, np.int32))
    options = schema.TransposeOptionsT()
    layout.emit(
        "TRANSPOSE", (layout.plain(node.input[0]), axes), node.output[0], options, last=False
    )


def concatenation(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Concat."""
    axis = int(attributes(node)["axis"]) % len(layout.shape(node.output[0]))
    options = schema.ConcatenationOptionsT()
    last = layout.is_last(*node.input)
    options.axis = PLACES[axis] if last else axis
    inputs = tuple(layout.last(name) if last else layout.plain(name) for name in node.input)
    layout.emit("CONCATENATION", inputs, node.output[0], options, last=last)


def slices(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Slice: STRIDED_SLICE forwards along constant ends."""
    shape = layout.shape(node.input[0])
    tables = [layout.constant(name) if name else None for name in node.input[1:]]
    if len(tables) < 2 or tables[0] is None or tables[1] is None:
        raise Untranslatable("ends that are computed")
    given = [table for table in tables if table is not None]
    axes = tables[2].tolist() if len(tables) > 2 and tables[2] is not None else range(len(given[0]))
    steps = tables[3].tolist() if len(tables) > 3 and tables[3] is not None else [1] * len(given[0])
    begins, ends, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, begin, end, step in zip(axes, given[0], given[1], steps, strict=True):
        begins[axis], ends[axis], _ = slice(int(begin), int(end), int(step)).indices(shape[axis])
        strides[axis] = int(step)
    if min(strides) < 1 or (begins[0], strides[0]) != (0, 1) or ends[0] != shape[0]:
        raise Untranslatable("a step back, or part of the batch")
    _strided(layout, node.input[0], node.output[0], begins, ends, strides)


def split(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Split: one STRIDED_SLICE a part."""
    shape = layout.shape(node.input[0])
    axis = int(attributes(node).get("axis", 0)) % len(shape)
    if axis == 0:
        raise Untranslatable("along the batch")
    begin = 0
    for name in node.output:
        size = layout.shape(name)[axis]
        begins, ends = [0] * len(shape), list(shape)
        begins[axis], ends[axis] = begin, begin + size
        _strided(layout, node.input[0], name, begins, ends, [1] * len(shape))
        begin += size


def gather(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Gather of constant places."""
    places = layout.constant(node.input[1])
    if places is None:
        raise Untranslatable("places that are computed")
    options = schema.GatherOptionsT()
    shape = layout.shape(node.input[0])
    options.axis = int(attributes(node).get("axis", 0)) % len(shape)
    if options.axis == 0 and layout.signature(node.input[0])[0] == -1:
        raise Untranslatable("along the batch")
    inputs = (
        layout.plain(node.input[0]),
        layout.file.constant(node.input[1], places % shape[options.axis]),
    )
    layout.emit("GATHER", inputs, node.output[0], options, last=False)


def resize(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Resize of an image: nearest and bilinear, as TFLite has them."""
    given = attributes(node)
    mode = given.get("mode", b"nearest").decode()
    at = given.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounds = given.get("nearest_mode", b"round_prefer_floor").decode()
    shape = layout.shape(node.output[0])
    if mode == "nearest" and (at, rounds) == ("asymmetric", "floor"):
        code, options = "RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT()
    elif mode == "linear" and at in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        code, options = "RESIZE_BILINEAR", schema.ResizeBilinearOptionsT()
        options.alignCorners = at == "align_corners"
        options.halfPixelCenters = at != "align_corners"
    else:
        raise Untranslatable(f"mode {mode}, {at}, {rounds}")
    sizes = layout.file.constant("sizes", np.array(shape[2:], np.int32))
    layout.emit(code, (layout.last(node.input[0]), sizes), node.output[0], options, last=True)


def alias(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate what changes nothing at inference: Identity, Dropout."""
    layout.same(node)


def _strided(
    layout: TfliteLayout,
    source: str,
    answer: str,
    begins: list[int],
    ends: list[int],
    strides: list[int],
) -> None:
    last = layout.is_last(source)
    order = (0, 2, 3, 1) if last else range(len(begins))
    tables = [
        layout.file.constant("ends", np.array([table[axis] for axis in order], np.int32))
        for table in (begins, ends, strides)
    ]
    options = schema.StridedSliceOptionsT()
    options.beginMask = options.endMask = 1  # the batch, whatever it is
    tensor = layout.last(source) if last else layout.plain(source)
    layout.emit("STRIDED_SLICE", (tensor, *tables), answer, options, last=last)


OPERATORS: dict[str, Translate] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalAveragePool": reduce("MEAN"),
    "GlobalMaxPool": reduce("REDUCE_MAX"),
    "ReduceMean": reduce("MEAN"),
    "ReduceSum": reduce("SUM"),
    "ReduceMax": reduce("REDUCE_MAX"),
    "ReduceMin": reduce("REDUCE_MIN"),
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "Pad": pad,
    "Gemm": dense,
    "MatMul": dense,
    "Relu": activation,
    "Clip": activation,
    "LeakyRelu": leaky,
    "PRelu": prelu,
    "Elu": elu,
    "Gelu": gelu,
    "HardSwish": elementwise("HARD_SWISH", "HardSwishOptionsT"),
    "Sigmoid": elementwise("LOGISTIC"),
    "Tanh": elementwise("TANH"),
    "Exp": elementwise("EXP", "ExpOptionsT"),
    "Log": elementwise("LOG"),
    "Sqrt": elementwise("SQRT"),
    "Abs": elementwise("ABS", "AbsOptionsT"),
    "Neg": elementwise("NEG", "NegOptionsT"),
    "Pow": elementwise("POW", "PowOptionsT"),
    "Add": elementwise("ADD", "AddOptionsT"),
    "Sub": elementwise("SUB", "SubOptionsT"),
    "Mul": elementwise("MUL", "MulOptionsT"),
    "Div": elementwise("DIV", "DivOptionsT"),
    "Max": elementwise("MAXIMUM", "MaximumMinimumOptionsT"),
    "Min": elementwise("MINIMUM", "MaximumMinimumOptionsT"),
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": reshape,
    "Unsqueeze": reshape,
    "Transpose": transpose,
    "Concat": concatenation,
    "Slice": slices,
    "Split": split,
    "Gather": gather,
    "Resize": resize,
    "Identity": alias,
    "Dropout": alias,
}
