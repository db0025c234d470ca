from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tiny_onnx
from onnx import numpy_helper

from fettle.quantize import (
    activation_ranges,
    bias_correction,
    float_fallback,
    graph_session,
    static_int8,
)

Floats = npt.NDArray[np.float32]
IMAGES = tiny_onnx.images(64)


@pytest.fixture
def corrected(tmp_path: Path) -> static_int8.Int8Draft:
    return _draft(tiny_onnx.pooled(tmp_path / "model.onnx"))


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> static_int8.Int8Draft:
    with monkeypatch.context() as patch:
        patch.setattr(
            bias_correction, "_shrunk_mean", lambda apart: np.zeros(apart.shape[1], np.float32)
        )
        return _draft(tiny_onnx.pooled(tmp_path / "model.onnx"))


def _draft(model: Path) -> static_int8.Int8Draft:
    return static_int8.drafts(model, batches=[IMAGES[:40], IMAGES[40:]], methods=["minmax"])[
        "minmax"
    ]


def _means(proto: onnx.ModelProto) -> dict[str, Floats]:
    return {name: rows.mean(axis=0) for name, rows in _by_image(proto).items()}


def _by_image(proto: onnx.ModelProto) -> dict[str, Floats]:
    """Average what each convolution answers to IMAGES, as it comes before any pair."""
    answers = [node.output[0] for node in proto.graph.node if node.op_type == "Conv"]
    session = graph_session.watching(proto, answers)
    found = session.run(answers, {session.get_inputs()[0].name: IMAGES})
    means = bias_correction.ChannelMeans(proto)
    means.add(dict(zip(answers, found, strict=True)))
    return means.of_layers()


def test_every_layers_means_come_nearer_to_the_float_graphs(
    plain: static_int8.Int8Draft, corrected: static_int8.Int8Draft
) -> None:
    wanted = _means(plain.prepared)
    before, after = _means(plain.quantized), _means(corrected.quantized)
    assert sorted(wanted) == ["conv0", "conv1", "conv2"]
    assert before["conv0"] == pytest.approx(wanted["conv0"], abs=1e-5)  # it stays float
    for name in ("conv1", "conv2"):
        far, near = (np.abs(one[name] - wanted[name]).mean() for one in (before, after))
        assert near < 0.35 * far, name


def test_new_images_are_answered_nearer_to_the_float_graph(
    plain: static_int8.Int8Draft, corrected: static_int8.Int8Draft
) -> None:
    images = tiny_onnx.images(300, seed=7)
    wanted = float_fallback.run(plain.prepared, images)
    before, after = (
        float(((float_fallback.run(one.quantized, images) - wanted) ** 2).mean())
        for one in (plain, corrected)
    )
    assert after < 0.8 * before


def test_the_pieces_together_are_the_whole_graph(
    plain: static_int8.Int8Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every shift taken as none, each piece finds what the whole graph's run finds."""
    seen: list[Floats] = []

    def none(apart: Floats) -> Floats:
        seen.append(apart)
        return np.zeros(apart.shape[1], np.float32)

    monkeypatch.setattr(bias_correction, "_shrunk_mean", none)
    means = _by_image(plain.prepared)
    whole = _by_image(plain.quantized)
    bias_correction.correct(plain.quantized, prepared=plain.prepared, means=means, batches=[IMAGES])
    assert len(seen) == 2
    for name, apart in zip(("conv1", "conv2"), seen, strict=True):
        # the whole graph rounds each bias to a step of its layer, a piece leaves it float
        assert means[name] - whole[name] == pytest.approx(apart, abs=2e-3)


def test_a_convolution_without_a_bias_gets_one(tmp_path: Path) -> None:
    made = _draft(tiny_onnx.classifier(tmp_path / "model.onnx", width=8))
    before = next(n for n in made.prepared.graph.node if n.name == "conv2")
    after = next(n for n in made.quantized.graph.node if n.name == "conv2")
    assert (len(before.input), len(after.input)) == (2, 3)
    tensor = next(t for t in made.quantized.graph.initializer if t.name == after.input[2])
    assert np.abs(numpy_helper.to_array(tensor)).max() > 0


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([0.25] * 64, 0.25), ([1.0, -1.0] * 32, 0.0), ([1.0, 0.0] * 32, 0.5 * (1 - 1 / 64))],
    ids=["certain", "none", "nearly certain"],
)
def test_a_shift_counts_by_how_sure_it_is(rows: list[float], expected: float) -> None:
    apart = np.array(rows, np.float32).reshape(64, 1)
    assert bias_correction._shrunk_mean(apart) == pytest.approx(np.array([expected]), abs=1e-6)


def test_the_first_batches_are_taken_until_there_are_enough_images() -> None:
    batches = [IMAGES[:15]] * 5
    assert [len(one) for one in bias_correction.first_batches(batches)] == [15, 15, 15]
    assert [len(one) for one in bias_correction.first_batches(batches[:1])] == [15]


def test_means_are_of_the_first_images_alone(tmp_path: Path) -> None:
    one = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2, 3, 3])
        for name in ("x", "y")
    ]
    same = numpy_helper.from_array(np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1), "w")
    conv = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([conv], "g", one[:1], one[1:], [same]),
        opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8,
    )  # fmt: skip
    batches = [np.full((20, 2, 3, 3), at, np.float32) for at in range(4)]
    means = bias_correction.ChannelMeans(proto)
    activation_ranges.collect(
        proto,
        tmp_path,
        batches=batches,
        methods=["minmax"],
        shown=len(bias_correction.first_batches(batches)),
        on_batch=means.add,
    )
    rows = means.of_layers()["conv"]
    assert rows.shape == (40, 2)  # as many batches as hold _bias.IMAGES
    assert rows[:, 0].tolist() == [0.0] * 20 + [1.0] * 20
