"""ONNX classifiers as other tools write them, and the family that adopts one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.errors import ModelError
from fettle.models.families import onnx_file as family

Dim = int | str | None
CLASSES = ["cat", "dog", "owl"]


def weights(name: str, *shape: int) -> Any:
    values = np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def model(
    *,
    dims: Sequence[Dim] = ("n", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    width: int = 3,
    flat: bool = True,
    opset: int = 17,
    nodes: Sequence[Any] = (),
    names: tuple[str, str] = ("pixels", "scores"),
) -> Any:
    """Make pixels → Conv → `nodes` from "c" to "d" (else the same) → pool → 1x1 Conv → scores."""
    given, answer = names
    body = list(nodes) or [helper.make_node("Relu", ["c"], ["d"])]
    tail = [helper.make_node("Conv", ["p", "w2"], ["q"])]
    last = "Flatten" if flat else "Identity"
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [given, "w1"], ["c"], doc_string="from /elsewhere/net.py"),
            *body,
            helper.make_node("GlobalAveragePool", ["d"], ["p"]),
            *tail,
            helper.make_node(last, ["q"], [answer]),
        ],
        "stranger",
        [helper.make_tensor_value_info(given, kind, dims)],
        [helper.make_tensor_value_info(answer, TensorProto.FLOAT, [None] * (2 if flat else 4))],
        [weights("w1", 4, 3, 3, 3), weights("w2", width, 4, 1, 1)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    proto.metadata_props.add(key="made", value="yesterday")
    return proto


def saved(proto: Any, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(proto, path)
    return path


def adopt(path: Path, **changed: Any) -> family.AdoptedModel:
    given: dict[str, Any] = {"channels": 3, "size_px": 8, "classes": CLASSES, "labels": None}
    return family.adopt(path, **(given | changed))


def refusal(proto: Any, folder: Path, **changed: Any) -> str:
    with pytest.raises(ModelError) as caught:
        adopt(saved(proto, folder), **changed)
    return str(caught.value)
