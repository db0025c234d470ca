"""Build tiny ONNX classifiers that really tell three kinds of image apart; no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]

CLASSES = 3
SIZE_PX = 8


def images(count: int, *, seed: int = 0, channels: int = 1, noise: float = 0.35) -> Floats:
    """Noisy, normalised images [count, C, 8, 8]; image i is of class i % 3."""
    rng = np.random.default_rng(seed)
    clean = prototypes(channels)[np.arange(count) % CLASSES]
    return (clean + rng.normal(scale=noise, size=clean.shape)).clip(-1, 1).astype(np.float32)


def labels(count: int) -> npt.NDArray[np.int64]:
    return np.arange(count) % CLASSES


def prototypes(channels: int = 1) -> Floats:
    """One clean image a class: left half bright, a bright middle, right half bright."""
    clean = np.full((CLASSES, channels, SIZE_PX, SIZE_PX), -0.8, dtype=np.float32)
    clean[0, :, :, :4] = clean[1, :, :, 2:6] = clean[2, :, :, 4:] = 0.8
    return clean


def classifier(
    path: Path,
    *,
    channels: int = 1,
    width: int = 4,
    batch: int | str = "batch",
    opset: int = 20,
    dead: float | None = None,
    seed: int = 0,
) -> Path:
    """Write Conv, Clip, Conv (depthwise), Add, Flatten, Gemm; `dead` is a dead channel's bias.

    Its logits are the likeness to each prototype, so it is right on nearly every image.
    """
    rng = np.random.default_rng(seed)
    first = rng.normal(scale=0.4, size=(width, channels, 3, 3)).astype(np.float32)
    bias = rng.normal(scale=0.1, size=width).astype(np.float32)
    if dead is not None:
        first[1], bias[1] = 0, dead
    weights: dict[str, Floats] = {
        "w1": first,
        "b1": bias,
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "w2": rng.normal(scale=0.3, size=(width, 1, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Clip", ["c1", "low", "high"], ["r1"], "clip1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1] * 4, group=width),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("Flatten", ["a"], ["f"], "flatten"),
    ]
    kinds = _features(nodes, weights, prototypes(channels), width * SIZE_PX**2, opset)
    kinds -= kinds.mean(axis=0)
    kinds /= np.abs(kinds).sum(axis=1).mean() / 4
    weights["g"] = kinds.astype(np.float32)
    weights["gb"] = (-0.5 * (kinds**2).sum(axis=1)).astype(np.float32)
    nodes.append(helper.make_node("Gemm", ["f", "g", "gb"], ["logits"], "gemm", transB=1))
    shape = [batch, channels, SIZE_PX, SIZE_PX]
    return _write(path, nodes, weights, shape, [batch, CLASSES], opset)


def branching(path: Path) -> Path:
    """Write a classifier that takes one of two paths, by the image's brightness."""
    base = onnx.load(classifier(path))
    half = numpy_helper.from_array(np.float32(0.5), "half")
    value = helper.make_tensor_value_info
    halves = helper.make_graph(
        [helper.make_node("Mul", ["plain", "half"], ["then_out"])],
        "then",
        [],
        [value("then_out", TensorProto.FLOAT, None)],
    )
    keeps = helper.make_graph(
        [helper.make_node("Identity", ["plain"], ["else_out"])],
        "else",
        [],
        [value("else_out", TensorProto.FLOAT, None)],
    )
    graph = base.graph
    graph.node[-1].output[0] = "plain"
    graph.initializer.extend([half, numpy_helper.from_array(np.float32(0), "zero")])
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
            helper.make_node("Greater", ["mean", "zero"], ["bright"]),
            helper.make_node("If", ["bright"], ["logits"], then_branch=halves, else_branch=keeps),
        ]
    )
    onnx.checker.check_model(base, full_check=True)
    onnx.save(base, path)
    return path


def pooling(path: Path) -> Path:
    """Write a graph with no heavy operator: the mean of each channel is its logit."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    return _write(path, nodes, {}, ["batch", 3, SIZE_PX, SIZE_PX], ["batch", 3], 20)


def weights(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Read every initialiser."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def replace_weight(path: Path, name: str, value: npt.NDArray[np.generic]) -> None:
    """Change one initialiser in place."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, path)


def _features(
    nodes: list[onnx.NodeProto],
    held: dict[str, Floats],
    clean: Floats,
    count: int,
    opset: int,
) -> Floats:
    from onnx.reference import ReferenceEvaluator

    model = _model(nodes, held, ["batch", *clean.shape[1:]], ("f", ["batch", count]), opset)
    (found,) = ReferenceEvaluator(model).run(None, {"input": clean})
    return np.array(found)


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    held: dict[str, Floats],
    shape: list[int | str],
    answer: list[int | str],
    opset: int,
) -> Path:
    model = _model(nodes, held, shape, ("logits", answer), opset)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _model(
    nodes: list[onnx.NodeProto],
    held: dict[str, Floats],
    shape: list[int | str],
    answer: tuple[str, list[int | str]],
    opset: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(answer[0], TensorProto.FLOAT, answer[1])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(10, 7 + opset // 13)
    )


def pooled(path: Path, *, widths: tuple[int, ...] = (32, 48, 64), seed: int = 0) -> Path:
    """Write a chain of convolutions, a pool and a Gemm: channels may be cut width by width."""
    rng = np.random.default_rng(seed)
    nodes, held, source, before = [], [], "input", 1
    for index, width in enumerate(widths):
        weight = rng.normal(scale=0.3, size=(width, before, 3, 3)).astype(np.float32)
        held += [
            numpy_helper.from_array(weight, f"w{index}"),
            numpy_helper.from_array(np.zeros(width, np.float32), f"b{index}"),
        ]
        nodes += [
            helper.make_node(
                "Conv",
                [source, f"w{index}", f"b{index}"],
                [f"c{index}"],
                f"conv{index}",
                pads=[1, 1, 1, 1],
            ),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"),
        ]
        source, before = f"r{index}", width
    head = rng.normal(size=(CLASSES, before)).astype(np.float32)
    held += [
        numpy_helper.from_array(head, "wg"),
        numpy_helper.from_array(np.zeros(CLASSES, np.float32), "bg"),
    ]
    nodes += [
        helper.make_node("GlobalAveragePool", [source], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "wg", "bg"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIZE_PX, SIZE_PX])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path
