"""TFLite convolutions, pools and pads of ONNX's: all with channels last, padding worked out.

TFLite knows two paddings: VALID (none) and SAME, which pads the far side by one more where the sum
is odd. What ONNX pads otherwise becomes a PAD of its own before a VALID operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .onnx_attributes import Untranslatable, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

    from .onnx_attributes import Attributes
    from .onnx_static_shapes import Shape
    from .tflite_layout import TfliteLayout

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
SYMMETRIC = schema.MirrorPadMode.SYMMETRIC


def convolution(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Conv: CONV_2D, or DEPTHWISE_CONV_2D where each channel is a group."""
    weight = layout.constant(node.input[1])
    if weight is None or weight.ndim != 4:
        raise Untranslatable("weights that are no constant of four axes")
    given = attributes(node)
    outside, inside, *kernel = weight.shape
    groups = int(given.get("group", 1))
    depthwise = groups > 1 and inside == 1
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    source, options.padding = _padded(layout, node, given, tuple(kernel))
    options.strideH, options.strideW = given.get("strides", (1, 1))
    options.dilationHFactor, options.dilationWFactor = given.get("dilations", (1, 1))
    if depthwise:
        options.depthMultiplier = outside // groups
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    filters = layout.file.constant(node.input[1], weight.transpose(order))
    added = _bias(layout, node, outside)
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    layout.emit(code, (source, filters, added), node.output[0], options, last=True)


def transposed_convolution(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate ConvTranspose without padding: TRANSPOSE_CONV."""
    weight = layout.constant(node.input[1])
    given = attributes(node)
    plain = (
        weight is not None
        and weight.ndim == 4
        and given.get("group", 1) == 1
        and not any(given.get("pads", ()))
        and not any(given.get("output_padding", ()))
        and set(given.get("dilations", ())) <= {1}
    )
    if not plain or weight is None:
        raise Untranslatable("groups, padding or dilation")
    shape = layout.shape(node.output[0])
    options = schema.TransposeConvOptionsT()
    options.padding = VALID
    options.strideH, options.strideW = given.get("strides", (1, 1))
    if -1 in layout.signature(node.output[0]):
        raise Untranslatable("a batch that is free: its answer's size is a constant in the file")
    size = layout.file.constant("size", np.array([shape[0], *shape[2:], shape[1]], np.int32))
    filters = layout.file.constant(node.input[1], weight.transpose(1, 2, 3, 0))
    inputs = (size, filters, layout.last(node.input[0]), _bias(layout, node, shape[1]))
    layout.emit("TRANSPOSE_CONV", inputs, node.output[0], options, last=True)


def pool(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate MaxPool and AveragePool."""
    given = attributes(node)
    options = schema.Pool2DOptionsT()
    kernel = given["kernel_shape"]
    largest = node.op_type == "MaxPool"
    if len(kernel) != 2 or len(node.output) > 1 or set(given.get("dilations", ())) - {1}:
        raise Untranslatable("dilation, another rank than four, or a second answer")
    if not largest and given.get("ceil_mode"):
        raise Untranslatable("a mean over windows that the image ends in")
    if not largest and any(given.get("pads", ())) and not given.get("count_include_pad"):
        source, options.padding = _same_only(layout, node, given)
    else:
        source, options.padding = _padded(layout, node, given, kernel, mirrored=largest)
    options.filterHeight, options.filterWidth = kernel
    options.strideH, options.strideW = given.get("strides", (1, 1))
    code = "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D"
    layout.emit(code, (source,), node.output[0], options, last=True)


def pad(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Pad: by a constant, by the image mirrored, by its edge doubled."""
    given = attributes(node)
    mode = given.get("mode", b"constant").decode()
    name = node.input[0]
    sizes = layout.constant(node.input[1]) if len(node.input) > 1 else None
    pads = [int(size) for size in (given.get("pads", ()) if sizes is None else sizes.tolist())]
    rank = len(layout.shape(name))
    if len(pads) != 2 * rank or min(pads) < 0 or (len(node.input) > 3 and node.input[3]):
        raise Untranslatable("axes, or sizes below zero")
    last = rank == 4 and layout.is_last(name)
    order = (0, 2, 3, 1) if last else range(rank)
    table = np.array([(pads[axis], pads[axis + rank]) for axis in order], np.int32)
    source = layout.last(name) if last else layout.plain(name)
    ends = layout.file.constant("pads", table)
    filled = layout.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    value = float(given.get("value", 0.0) if filled is None else filled.reshape(-1)[0])
    if mode == "reflect":
        options = schema.MirrorPadOptionsT()
        options.mode = schema.MirrorPadMode.REFLECT
        layout.emit("MIRROR_PAD", (source, ends), node.output[0], options, last=last)
    elif mode == "constant" and value == 0:
        layout.emit("PAD", (source, ends), node.output[0], schema.PadOptionsT(), last=last)
    elif mode == "constant":
        fill = layout.file.constant("fill", np.array(value, np.float32))
        options = schema.PadV2OptionsT()
        layout.emit("PADV2", (source, ends, fill), node.output[0], options, last=last)
    else:
        raise Untranslatable(f"mode {mode}")


def _bias(layout: TfliteLayout, node: NodeProto, channels: int) -> int:
    given = node.input[2] if len(node.input) > 2 else ""
    array = layout.constant(given) if given else np.zeros(channels, np.float32)
    if array is None:
        raise Untranslatable("a bias that is computed")
    return layout.file.constant(given or f"{node.output[0]}_bias", array)


def _ends(given: Attributes, kernel: Shape, before: Shape, after: Shape) -> list[tuple[int, int]]:
    """Return what is padded before and behind height and width, so that VALID answers `after`."""
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    auto = given.get("auto_pad", b"NOTSET").decode()
    pads = given.get("pads", (0, 0, 0, 0))
    ends = []
    for axis in range(2):
        needed = (after[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(needed - before[axis], 0)
        match auto:
            case "SAME_UPPER":
                first = total // 2
            case "SAME_LOWER":
                first = total - total // 2
            case "VALID":
                first = 0
            case _:
                first = pads[axis]
        ends.append((first, max(total - first, 0)))
    return ends


def _same(given: Attributes, kernel: Shape, before: Shape) -> list[tuple[int, int]]:
    """Return what TFLite's SAME pads."""
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    ends = []
    for axis in range(2):
        steps = -(-before[axis] // strides[axis])
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        total = max((steps - 1) * strides[axis] + reach - before[axis], 0)
        ends.append((total // 2, total - total // 2))
    return ends


def _padded(
    layout: TfliteLayout,
    node: NodeProto,
    given: Attributes,
    kernel: Shape,
    *,
    mirrored: bool = False,
) -> tuple[int, int]:
    """Return the operator's input, padded where need be, and the padding that it takes.

    `mirrored`: zeros would not do, for the largest of a window may be below zero; its own edge
    doubled changes no window's largest, as a pool pads no more than half its kernel.
    """
    name = node.input[0]
    before, after = layout.shape(name)[2:], layout.shape(node.output[0])[2:]
    ends = _ends(given, kernel, before, after)
    source = layout.last(name)
    if ends == [(0, 0), (0, 0)]:
        return source, VALID
    strides = given.get("strides", (1, 1))
    steps = tuple(-(-size // stride) for size, stride in zip(before, strides, strict=True))
    if ends == _same(given, kernel, before) and after == steps:
        return source, SAME
    table = layout.file.constant("pads", np.array([(0, 0), *ends, (0, 0)], np.int32))
    sizes = [size + sum(end) for size, end in zip(before, ends, strict=True)]
    shape = (layout.shape(name)[0], *sizes, layout.shape(name)[1])
    if not mirrored or layout.not_negative(name):
        options = schema.PadOptionsT()
        return layout.between("PAD", (source, table), source, shape, options), VALID
    if any(2 * max(end) > size for end, size in zip(ends, kernel, strict=True)):
        raise Untranslatable("a padding of more than half the kernel")
    options = schema.MirrorPadOptionsT()
    options.mode = SYMMETRIC
    return layout.between("MIRROR_PAD", (source, table), source, shape, options), VALID


def _same_only(layout: TfliteLayout, node: NodeProto, given: Attributes) -> tuple[int, int]:
    """Return the input of a mean over what lies inside the image: SAME alone leaves the pad out."""
    before, after = layout.shape(node.input[0])[2:], layout.shape(node.output[0])[2:]
    kernel = given["kernel_shape"]
    if _ends(given, kernel, before, after) != _same(given, kernel, before):
        raise Untranslatable("a padding that TFLite's mean cannot leave out")
    return layout.last(node.input[0]), SAME
