"""ONNX checks: refuse a file that is no image classifier for this data; say what would make it
one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fettle.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto


def read(path: Path) -> ModelProto:
    """Load and check a file (its external data too); raises ModelError when it is no ONNX."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # no stubs

    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
    except (DecodeError, onnx.checker.ValidationError, OSError) as err:
        raise ModelError(
            f"{path.name} is no sound ONNX model",
            got=str(err).splitlines()[0].rstrip(".") if str(err) else type(err).__name__,
            rule="it must load and pass ONNX's own checker",
            fix="export it again, with its weights inside the file or beside it",
        ) from err
    weights = {value.name for value in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 7)  # below 4 weights had to be inputs too
    for kind, values in (("input", inputs), ("output", proto.graph.output)):
        if len(values) != 1:
            raise ModelError(
                f"{path.name} has {len(values)} {kind}s",
                got=", ".join(value.name for value in values) or "none",
                rule=f"a classifier here has one {kind}",
                fix="cut the graph with onnx.utils.extract_model to one input and the logits",
            )
    return proto


def external_files(path: Path) -> list[Path]:
    """List the files beside an ONNX file that hold its weights, sorted; none of them is read.

    No ONNX file has none: reading it gives the clear error. Raises ModelError when one is missing,
    a link, or outside the folder.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import (
        ExternalDataInfo,
        _get_all_tensors,
        uses_external_data,
    )

    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError):
        return []
    tensors = [tensor for tensor in _get_all_tensors(proto) if uses_external_data(tensor)]
    files = []
    for location in sorted({ExternalDataInfo(tensor).location for tensor in tensors}):
        file = path.parent / location
        inside = file.resolve().is_relative_to(path.parent.resolve())
        problem = (
            f"{file}, a link"
            if file.is_symlink()
            else f"{file}, outside its folder"
            if not inside
            else f"{file}: no such file"
        )
        if not inside or file.is_symlink() or not file.is_file():
            raise ModelError(
                f"{path.name} keeps its weights in another file",
                got=problem,
                rule="such a file lies beside the .onnx or in a folder below it, as a file",
                fix=f"copy {location} there, or export the model with its weights inside",
            )
        files.append(file)
    return files


def check_input(proto: ModelProto, *, channels: int, size_px: int) -> None:
    """Raise ModelError unless the input can be float32 [batch, channels, size_px, size_px]."""
    import onnx

    tensor = proto.graph.input[0].type.tensor_type
    shape = [
        dimension.dim_value if dimension.dim_value > 0 else None for dimension in tensor.shape.dim
    ]
    shown = f"[{', '.join('any' if dimension is None else str(dimension) for dimension in shape)}]"
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(shape) != 4:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise ModelError(
            "the ONNX model's input is no batch of images",
            got=f"{kind} {shown}",
            rule="it must be float [batch, channels, height, width]",
            fix="export it with a float32 input of rank 4, channels first",
        )
    if shape[1] not in (None, channels):
        last = shape[3] in (1, 3)
        raise ModelError(
            "the ONNX model's channels do not fit preprocess.channels",
            got=f"{shown} against {channels}",
            rule="the input is [batch, channels, height, width]",
            fix="export it channels first"
            if last
            else f"set preprocess.channels to {shape[1]}"
            if shape[1] in (1, 3)
            else "take a model for 1 or 3 channels",
        )
    for side in shape[2:]:
        if side not in (None, size_px):
            square = shape[2] == shape[3]
            raise ModelError(
                "the ONNX model's image size does not fit preprocess.size_px",
                got=f"{shown} against {size_px}",
                rule="images are square here",
                fix=f"set preprocess.size_px to {side}"
                if square
                else "export the model with a square or a free image size",
            )


def output_order(classes: list[str], labels: list[str] | None, *, width: int) -> list[int]:
    """Return for each class, in sorted order, the index of its output.

    Raises ModelError when the model's outputs are not the data's classes.
    """
    if width != len(classes):
        raise ModelError(
            "the ONNX model's outputs are not the data's classes",
            got=f"{width} outputs, {len(classes)} classes ({', '.join(classes[:5])}"
            f"{', …' if len(classes) > 5 else ''})",
            rule="there must be one output a class",
            fix="give data of the classes that the model was trained for",
        )
    if labels is None:
        return list(range(width))
    if sorted(labels) != classes:
        odd = sorted(set(labels) ^ set(classes))
        raise ModelError(
            "finetune.options.labels are not the data's classes",
            got=f"{len(labels)} labels; not in both: {', '.join(odd[:5]) or 'a repeated name'}",
            rule="labels names every class once, in the order of the model's outputs",
            fix=f"write the names {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''} in "
            "that order",
        )
    return [labels.index(name) for name in classes]
