from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from onnx import numpy_helper

from fettle.hardware.runtimes import ort
from fettle.quantize import float_fallback, static_int8


@pytest.fixture
def draft(tmp_path: Path) -> static_int8.Int8Draft:
    """A classifier with one layer of two-bit weights: much is lost in it, and little elsewhere."""
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=8)
    drafts = static_int8.drafts(model, batches=[tiny_onnx.images(60)], methods=["minmax"])
    graph = drafts["minmax"].quantized.graph
    tensor = next(one for one in graph.initializer if one.name == "w2_quantized")
    coarse = np.round(numpy_helper.to_array(tensor) / 64) * 64
    tensor.CopyFrom(numpy_helper.from_array(coarse.clip(-64, 64).astype(np.int8), tensor.name))
    return drafts["minmax"]


def test_the_layer_that_loses_most_for_its_price_comes_first(draft: static_int8.Int8Draft) -> None:
    macs = float_fallback.macs(draft.prepared, tiny_onnx.images(1))
    assert macs == {"conv1": 64 * 8 * 9, "conv2": 64 * 8 * 9, "gemm": 512 * 3}
    layers = float_fallback.rank_layers(
        draft.quantized, draft.prepared, images=tiny_onnx.images(48, seed=3), macs=macs
    )
    assert layers[0].name == "conv2"
    assert layers[0].regained > 0.3
    assert {layer.name for layer in layers} == {"conv1", "conv2", "gemm"}


def test_a_reverted_layer_is_counted_as_float_and_ships_its_own_weight(
    draft: static_int8.Int8Draft, tmp_path: Path
) -> None:
    coverage = static_int8.finish(draft, tmp_path / "mixed.onnx", keep_float=["conv2"])
    assert (coverage.quantized, coverage.left) == ({"Conv": 1, "Gemm": 1}, {"Conv": 1})
    plain = tmp_path / "plain.onnx"
    static_int8.finish(draft, plain)
    images = tiny_onnx.images(60, seed=5)
    wanted = float_fallback.run(draft.prepared, images)
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

    assert float_fallback.fewest_layers(10, accept) == least
    assert len(asked) <= 5


def test_there_is_no_number_of_layers_where_none_is_accepted() -> None:
    assert float_fallback.fewest_layers(10, lambda _: False) is None
    assert float_fallback.fewest_layers(0, lambda _: True) is None
