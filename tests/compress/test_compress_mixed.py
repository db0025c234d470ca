from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.compress import _mixed, int8_qdq
from fettle.runtimes import ort


@pytest.fixture
def draft(tmp_path: Path) -> int8_qdq.Draft:
    """A classifier whose first layer quantizes badly: one weight a hundred times the others'."""
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=8)
    weight = tiny_onnx.weights(model)["w2"].copy()
    weight[:, 0, 1, 1] = 100 * np.abs(weight).max()
    tiny_onnx.replace_weight(model, "w2", weight)
    drafts = int8_qdq.drafts(model, batches=[tiny_onnx.images(60)], methods=["minmax"])
    return drafts["minmax"]


def test_all_layers_float_answer_as_the_float_graph_but_for_the_residual(
    draft: int8_qdq.Draft,
) -> None:
    images = tiny_onnx.images(40, seed=2)
    names = _mixed.candidates(draft.quantized)
    assert names == ["conv1", "conv2", "gemm"]
    wanted = _mixed.run(draft.prepared, images)
    errors = [
        float(((_mixed.run(one, images) - wanted) ** 2).mean())
        for one in (
            draft.quantized,
            _mixed.reverted(draft.quantized, draft.prepared, names),
        )
    ]
    assert errors[1] < 0.2 * errors[0]  # the Add is still rounded


def test_a_float_layer_gets_the_clip_back_that_a_range_replaced(draft: int8_qdq.Draft) -> None:
    kinds = [node.op_type for node in draft.quantized.graph.node]
    assert "Clip" not in kinds
    proto = _mixed.reverted(draft.quantized, draft.prepared, ["conv2"])
    onnx.checker.check_model(proto, full_check=True)
    node = next(n for n in proto.graph.node if n.name == "conv2")
    maker = next(n for n in proto.graph.node if node.input[0] in n.output)
    assert maker.op_type == "Clip"


def test_the_layer_that_loses_most_for_its_price_comes_first(draft: int8_qdq.Draft) -> None:
    macs = _mixed.macs(draft.prepared, tiny_onnx.images(1))
    assert macs == {"conv1": 64 * 8 * 9, "conv2": 64 * 8 * 9, "gemm": 512 * 3}
    layers = _mixed.rank(
        draft.quantized, draft.prepared, images=tiny_onnx.images(48, seed=3), macs=macs
    )
    assert layers[0].name == "conv2"
    assert layers[0].regained > 0.3
    assert {one.name for one in layers} == {"conv1", "conv2", "gemm"}


def test_a_reverted_layer_is_counted_as_float_and_ships_its_own_weight(
    draft: int8_qdq.Draft, tmp_path: Path
) -> None:
    coverage = int8_qdq.finish(draft, tmp_path / "mixed.onnx", keep_float=["conv2"])
    assert (coverage.quantized, coverage.left) == ({"Conv": 1, "Gemm": 1}, {"Conv": 1})
    plain = tmp_path / "plain.onnx"
    int8_qdq.finish(draft, plain)
    images = tiny_onnx.images(60, seed=5)
    wanted = _mixed.run(draft.prepared, images)
    mixed, all_int8 = (
        np.abs(ort.open(path, threads=1).run(images) - wanted).max()
        for path in (tmp_path / "mixed.onnx", plain)
    )
    assert mixed < 0.9 * all_int8


@pytest.mark.parametrize("least", [1, 2, 7, 10])
def test_bisection_finds_the_fewest_layers(least: int) -> None:
    asked: list[int] = []

    def accept(count: int) -> bool:
        asked.append(count)
        return count >= least

    assert _mixed.fewest(10, accept) == least
    assert len(asked) <= 5


def test_there_is_no_number_of_layers_where_none_is_accepted() -> None:
    assert _mixed.fewest(10, lambda _: False) is None
    assert _mixed.fewest(0, lambda _: True) is None
