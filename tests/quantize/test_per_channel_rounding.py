from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import tiny_onnx
from onnx import helper

from fettle.quantize import per_channel_rounding, static_int8


def _quantized(model: Path, bits: Literal[7, 8]) -> onnx.ModelProto:
    images = [tiny_onnx.images(40)]
    made = static_int8.drafts(model, batches=images, methods=["minmax"], weight_bits=bits)
    proto = made["minmax"].quantized
    assert isinstance(proto, onnx.ModelProto)
    return proto


def _weight(proto: onnx.ModelProto, layer: str) -> list[np.ndarray]:
    """Return the values, the scales and the zero points of a layer's weight."""
    held = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    node = next(node for node in proto.graph.node if node.name == layer)
    end = next(one for one in proto.graph.node if node.input[1] in one.output)
    assert [(one.name, one.i) for one in end.attribute] == [("axis", 0)]
    return [held[name] for name in end.input]


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("dead", [None, 0.3, 40.0])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "gemm"])
def test_weights_are_those_of_the_quantizer_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bits: Literal[7, 8],
    dead: float | None,
    layer: str,
) -> None:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=8, dead=dead, seed=3)
    ours = _weight(_quantized(model, bits), layer)
    monkeypatch.setattr(per_channel_rounding, "round_convolutions", lambda _: [])
    theirs = _weight(_quantized(model, bits), layer)
    assert [our.dtype for our in ours] == [their.dtype for their in theirs]
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=2e-7)  # what a bias needs: by one ulp
    np.testing.assert_array_equal(ours[2], theirs[2])


def test_the_step_of_a_dead_channel_holds_its_bias(tmp_path: Path) -> None:
    """Its weights alone would make a step in which int32 ends at 0.02."""
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=8, dead=40.0)
    proto = _quantized(model, 8)
    held = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    conv = next(node for node in proto.graph.node if node.name == "conv1")
    entry = next(one for one in proto.graph.node if conv.input[0] in one.output)
    step = float(held[entry.input[1]]) * float(_weight(proto, "conv1")[1][1])
    assert 0.99 < 40.0 / step / (2**31 - 1) < 1


def test_only_weights_that_convolutions_alone_read_are_its_own(tmp_path: Path) -> None:
    proto = onnx.load(tiny_onnx.classifier(tmp_path / "model.onnx"))
    assert per_channel_rounding.round_convolutions(proto) == ["w1", "w2"]
    proto.graph.node.append(helper.make_node("Abs", ["w2"], ["beside"], "abs"))
    assert per_channel_rounding.round_convolutions(proto) == ["w1"]
