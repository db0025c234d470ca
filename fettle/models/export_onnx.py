"""ONNX export of a torch module in fp32 with a parity check: the one bridge out of torch.

The file has one input "input" float32 [batch, C, S, S] and one output "logits" float32
[batch, classes], batch free. Same model, same bytes: names, stack traces and paths that the
exporter notes on each node are stripped.

BatchNorm is folded into the convolution before it in the same nn.Sequential (in a copy). The
exporter's own optimizer would fold it too, but only after translating every BatchNorm into some
ten nodes: measured on EfficientNet-Lite0, one thread, 8 s without and 3.5 s with. What stands
outside a Sequential is left to that optimizer.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.errors import ModelError

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from torch import nn

Floats = npt.NDArray[np.float32]

INPUT, OUTPUT = "input", "logits"
# Largest difference of a logit, as a share of the largest reference logit. fp32 rounding gives
# 1e-6 to 1e-5 here (EfficientNet-Lite0, 10 classes); a wrong operator gives more than 1e-2.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Parity: how far two sets of logits [n, classes] are apart.

    `cosine` is the smallest cosine over the rows, `max_abs` the largest difference of one logit,
    `relative` the same as a share of the largest reference logit, `top1` the share of rows with
    the same winner.
    """

    cosine: float
    max_abs: float
    relative: float
    top1: float

    def to_dict(self) -> dict[str, float]:
        """Return the JSON form."""
        return asdict(self)


def export(
    model: nn.Module, *, channels: int, size_px: int, out: Path, batch_example: int = 2
) -> None:
    """Write `model` (not changed, taken in eval mode) to `out` as ONNX with a free batch.

    Raises ModelError when the module's answer is not [batch, classes], when its forward branches
    on data, fixes the batch or uses an operator that ONNX lacks; the text has the line of its
    source where torch tells it.
    """
    import onnx
    import torch

    frozen = copy.deepcopy(model).to("cpu").eval().requires_grad_(False)
    # weights that were trained channels_last make a Gather over a computed index of a Flatten
    frozen.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # missing in stubs
    example = torch.zeros(batch_example, channels, size_px, size_px)
    _check_answer(frozen, example)
    _fold_norms(frozen)
    with _quiet():
        program = _trace(frozen, example)
        proto = _translate(program)
    _strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(proto.SerializeToString(deterministic=True))


def parity(model: Path, batch: Floats, reference: Floats) -> Parity:
    """Compare an ONNX file, run by ONNX Runtime on `batch` [n, C, S, S], with logits [n, classes].

    Raises ModelError when the file does not run or its answer has another shape.
    """
    return compare_logits(run_onnx(model, batch), reference)


def run_onnx(model: Path, batch: Floats) -> Floats:
    """Run an ONNX file on `batch` [n, C, S, S] by ONNX Runtime, one thread: logits [n, classes].

    A file of fixed batch 1 takes the images one by one. Raises ModelError when it does not run.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as foreign

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        one_by_one = session.get_inputs()[0].shape[0] == 1
        size = 1 if one_by_one else len(batch)
        parts = [
            session.run([OUTPUT], {INPUT: batch[start : start + size]})[0]
            for start in range(0, len(batch), size)
        ]
    except (
        foreign.Fail,
        foreign.InvalidArgument,
        foreign.InvalidGraph,
        foreign.InvalidProtobuf,
        foreign.NoSuchFile,
        foreign.NotImplemented,
        foreign.RuntimeException,
        ValueError,
    ) as err:
        raise ModelError(
            f"ONNX Runtime does not run {model.name}",
            got=_first_line(err),
            fix="open the file with the tool that made it and export it again",
        ) from err
    logits: Floats = np.concatenate(parts)
    return logits


def compare_logits(logits: Floats, reference: Floats) -> Parity:
    """Compare two arrays of logits [n, classes]; raises ModelError when their shapes differ."""
    if logits.shape != reference.shape:
        raise ModelError(
            "two versions of a model answer in different shapes",
            got=f"{list(logits.shape)} against {list(reference.shape)}",
            rule="both must give one logit a class for each image",
            fix="build both from the same family and options",
        )
    left, right = logits.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = (left * right).sum(axis=1) / np.maximum(norms, 1e-30)
    max_abs = float(np.abs(left - right).max())
    return Parity(
        cosine=float(cosines.min()),
        max_abs=max_abs,
        relative=max_abs / max(float(np.abs(right).max()), 1e-30),
        top1=float((left.argmax(axis=1) == right.argmax(axis=1)).mean()),
    )


def check_parity(measured: Parity, *, what: str, tolerance: float = TOLERANCE) -> None:
    """Raise ModelError when `measured.relative` is above `tolerance` or is not a number."""
    if measured.relative <= tolerance:
        return
    raise ModelError(
        f"{what} does not answer as the model it was made from",
        got=f"max_abs {measured.max_abs:.3g} ({measured.relative:.3g} of the largest logit), "
        f"cosine {measured.cosine:.6f}, top1 {measured.top1:.3f}",
        rule=f"the largest difference may be {tolerance:g} of the largest logit",
        fix="look in the model for operators that behave otherwise in eval mode or in ONNX",
    )


def _check_answer(model: nn.Module, example: torch.Tensor) -> None:
    import torch

    with torch.no_grad():
        answer = model(example)
    shape = list(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or len(answer) != len(example):
        raise ModelError(
            "the model's forward does not return logits",
            got=f"{shape} for an input of {list(example.shape)}",
            rule="it returns one float tensor [batch, classes]",
            fix="flatten or select the tensor inside forward",
        )


def _fold_norms(model: nn.Module) -> None:
    """Fold each BatchNorm2d into the Conv2d right before it in a Sequential, in place."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    chains = [m for m in model.modules() if isinstance(m, nn.Sequential)]
    for chain in chains:
        for index in range(len(chain) - 1):
            conv, norm = chain[index], chain[index + 1]
            if (
                type(conv) is nn.Conv2d
                and type(norm) is nn.BatchNorm2d
                and norm.track_running_stats
            ):
                chain[index] = fuse_conv_bn_eval(conv, norm)
                chain[index + 1] = nn.Identity()


def _trace(model: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    import torch

    try:
        return torch.export.export(
            model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as err:  # the user's forward runs in here: any exception may come out
        raise ModelError(
            f"the model cannot be exported{_source_line(err)}",
            got=f"{type(err).__name__}: {_first_line(err)}",
            rule="forward may not branch on the values it sees, nor fix the batch size",
            fix="replace the branch by tensor operations (torch.where, masks), take the batch "
            "size from x.shape[0] and not from len(x), or export the model yourself and use the "
            "family onnx_file",
        ) from err


def _translate(program: torch.export.ExportedProgram) -> ModelProto:
    import torch

    try:
        exported = torch.onnx.export(
            program,
            (),
            None,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as err:
        deepest: BaseException = err
        while deepest.__cause__ is not None:
            deepest = deepest.__cause__
        operator = re.search(r"op='([\w.]+)'", str(deepest))
        name = f"'{operator[1]}'" if operator else "one of its operators"
        where = _node_line(program, operator[1].rpartition(".")[2]) if operator else ""
        raise ModelError(
            f"the model cannot be written as ONNX: {name} has no translation{where}",
            got=_first_line(deepest),
            rule="every operator of forward needs an ONNX counterpart",
            fix="write that step with other torch operators",
        ) from err
    assert exported is not None  # dynamo=True returns a program
    return exported.model_proto


def _strip(proto: ModelProto) -> None:
    """Drop what differs from machine to machine or run to run: traces, paths, doc strings."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    graph = proto.graph
    graph.name = "fettle"
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]  # shapes inside follow from the input's
    for end in (graph.input[0], graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"  # the tracer's own name is a hash
    for part in (graph.node, graph.initializer, graph.input, graph.output):
        for item in part:
            item.doc_string = ""
            del item.metadata_props[:]


def _node_line(program: torch.export.ExportedProgram, operator: str) -> str:
    """Say ", at FILE line N (code)" for the traced step that uses `operator`."""
    for node in program.graph.nodes:
        frames = re.findall(r'File "(.+?)", line (\d+).*\n\s*(.+)', node.stack_trace or "")
        if operator in str(node.target) and frames:
            file, line, code = frames[-1]
            return f", at {Path(file).name} line {line} ({code})"
    return ""


def _source_line(err: BaseException) -> str:
    """Say ", at FILE line N (code)" for the deepest frame that is neither torch's nor ours."""
    frames = [
        frame
        for frame in traceback.extract_tb(err.__traceback__)
        if not re.search(r"[/\\](torch[/\\]|contextlib\.py)", frame.filename)
        and Path(frame.filename).resolve() != Path(__file__).resolve()
        and not frame.filename.startswith("<")
    ]
    if not frames:
        return ""
    frame = frames[-1]
    return f", at {Path(frame.filename).name} line {frame.lineno} ({frame.line})"


def _first_line(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence two remarks of the exporter: torchvision is absent, and a rename inside pytree."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning
            )
            yield
    finally:
        log.setLevel(level)
