from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import int8_file
import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware.runtimes import ort
from fettle.quantize import static_int8
from fettle.quantize.static_int8 import Calibrate

DROP = "Fix: drop the int8 targets (params.yaml: targets)"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx.classifier(tmp_path / "model.onnx", width=8)


def quantize(model: Path, *, calibrate: Calibrate = "minmax", count: int = 60) -> Path:
    out = model.with_name(f"{model.stem}-int8.onnx")
    pictures = tiny_onnx.images(count)
    batches = [pictures[at : at + 25] for at in range(0, count, 25)]  # the last one is shorter
    int8_file.write(model, out, batches=batches, calibrate=calibrate)
    return out


def logits(model: Path, count: int = 120) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return ort.open(model, threads=1).run(tiny_onnx.images(count, seed=5))


@pytest.mark.parametrize("calibrate", ["minmax", "entropy", "percentile"])
def test_int8_answers_as_the_float_model_within_a_bound(model: Path, calibrate: Calibrate) -> None:
    before, after = logits(model), logits(quantize(model, calibrate=calibrate))
    # half a step of each of the five tensors on the way, of 1 / 255 of its range each
    assert np.abs(after - before).max() < 0.03 * np.abs(before).max()
    assert (after.argmax(axis=1) == before.argmax(axis=1)).mean() > 0.98


def test_it_is_smaller(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=256)
    assert quantize(model).stat().st_size < 0.4 * model.stat().st_size


def test_activations_are_unsigned_and_weights_signed_per_channel(model: Path) -> None:
    proto = onnx.load(quantize(model))
    held = tiny_onnx.weights(quantize(model))
    quantizers = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    assert {held[n.input[2]].dtype for n in quantizers} == {np.dtype(np.uint8)}
    for name in ("conv1", "conv2"):
        weight, scale = dequantized(proto, name, 1)
        assert (held[weight].dtype, held[scale].shape) == (np.int8, (8,))


def dequantized(proto: onnx.ModelProto, name: str, at: int) -> tuple[str, str]:
    """Return the names of the int8 constant and of its scale behind an input of a node."""
    node = next(n for n in proto.graph.node if n.name == name)
    made = next(n for n in proto.graph.node if node.input[at] in n.output)
    return made.input[0], made.input[1]


def test_the_answer_itself_is_not_rounded(model: Path) -> None:
    proto = onnx.load(quantize(model))
    maker = next(n for n in proto.graph.node if "logits" in n.output)
    assert maker.op_type == "Gemm"
    assert len(np.unique(logits(quantize(model)))) > 300  # 256 steps would make ties


def test_every_heavy_operator_is_counted(model: Path) -> None:
    found = int8_file.write(
        model,
        model.with_name("q.onnx"),
        batches=[tiny_onnx.images(20)],
        calibrate="minmax",
    )
    assert (found.quantized, found.left) == ({"Conv": 2, "Gemm": 1}, {})


def test_the_same_inputs_give_the_same_bytes_in_any_process(model: Path) -> None:
    first = quantize(model).read_bytes()
    code = (
        "import sys; from pathlib import Path; import tiny_onnx; "
        "import int8_file; "
        "x = tiny_onnx.images(60); int8_file.write(Path(sys.argv[1]), Path(sys.argv[2]), "
        "batches=[x[:25], x[25:50], x[50:]], calibrate='minmax')"
    )
    other = model.with_name("other.onnx")
    subprocess.run(
        [sys.executable, "-c", code, str(model), str(other)],
        env={"PYTHONPATH": ":".join(p for p in sys.path if p), "PYTHONHASHSEED": "7"},
        cwd=Path(__file__).resolve().parents[2],
        check=True,
    )
    assert other.read_bytes() == first


def test_it_leaves_no_file_and_prints_nothing(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    quantize(model, calibrate="entropy")
    assert list(scratch.iterdir()) == []
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("bias", [0.3, 0.013, 1.7])
def test_a_dead_channels_bias_is_kept(tmp_path: Path, bias: float) -> None:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=8, dead=bias)
    proto = onnx.load(quantize(model))
    conv = next(n for n in proto.graph.node if n.name == "conv1")
    kept = tiny_onnx.weights(quantize(model))[conv.input[2]]
    assert kept[1] == np.float32(bias)
    # the runtime quantizes it by the channel's scale: the answers tell what became of it
    before, after = logits(model), logits(quantize(model))
    assert np.abs(after - before).max() < 0.03 * np.abs(before).max()


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-38, 1e-44])
def test_a_vanishing_channel_leaves_every_scale_a_normal_number(model: Path, size: float) -> None:
    weight = tiny_onnx.weights(model)["w1"].copy()
    weight[2] *= np.float32(size)
    tiny_onnx.replace_weight(model, "w1", weight)
    before = logits(model)
    after = quantize(model)
    held = tiny_onnx.weights(after)
    pairs = [n for n in onnx.load(after).graph.node if n.op_type.endswith("Linear")]
    scales = [held[n.input[1]] for n in pairs]
    assert len(scales) == 14
    assert min(float(scale.min()) for scale in scales) > np.finfo(np.float32).tiny
    assert np.abs(logits(after) - before).max() < 0.03 * np.abs(before).max()


def test_a_layer_that_is_dead_as_a_whole_is_no_obstacle(model: Path) -> None:
    weight = tiny_onnx.weights(model)["w2"]
    tiny_onnx.replace_weight(model, "w2", np.zeros_like(weight))
    assert np.isfinite(logits(quantize(model))).all()


def test_an_old_opset_is_raised(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "old.onnx", opset=11)
    out = quantize(model)
    assert onnx.load(out).opset_import[0].version == 13
    assert (logits(out).argmax(axis=1) == logits(model).argmax(axis=1)).mean() > 0.98


def test_a_model_of_batch_one_is_calibrated_one_by_one(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "one.onnx", batch=1)
    free = tiny_onnx.classifier(tmp_path / "free.onnx")
    assert logits(quantize(model)) == pytest.approx(logits(quantize(free)), abs=1e-5)


def test_fewer_images_than_one_fixed_batch_are_refused(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "wide.onnx", batch=64)
    with pytest.raises(ModelError) as caught:
        quantize(model, count=60)
    assert str(caught.value) == (
        "wide.onnx cannot be quantized to int8: too few images to calibrate on: got 60; the model "
        "takes one batch size only, and it is larger. Fix: raise export.calibration_images "
        "(params.yaml), or export the model with a free batch."
    )


def test_a_branch_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny_onnx.branching(tmp_path / "branching.onnx")
    with pytest.raises(ModelError) as caught:
        quantize(model)
    assert str(caught.value) == (
        "branching.onnx cannot be quantized to int8: it branches on its data: got If (1x); the "
        "int8 ranges are fixed before the run, so every image must take the same path. "
        f"{DROP}, or export the model without these operators."
    )
    assert not model.with_name("branching-int8.onnx").exists()


def test_a_graph_with_nothing_heavy_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx.pooling(tmp_path / "pooling.onnx")
    with pytest.raises(ModelError) as caught:
        int8_file.write(
            model,
            tmp_path / "out.onnx",
            batches=[tiny_onnx.images(8, channels=3)],
            calibrate="minmax",
        )
    assert str(caught.value) == (
        "pooling.onnx cannot be quantized to int8: got no Conv, Gemm, MatMul with constant weights "
        f"among its 2 operators; int8 buys time in those operators only. {DROP}."
    )


def test_images_that_do_not_fit_are_refused_with_the_operators(model: Path) -> None:
    with pytest.raises(ModelError) as caught:
        int8_file.write(
            model,
            model.with_name("q.onnx"),
            batches=[np.zeros((2, 3, 8, 8), dtype=np.float32)],
            calibrate="minmax",
        )
    text = str(caught.value)
    assert text.startswith("model.onnx cannot be quantized to int8: got InvalidArgument: ")
    assert "; its operators are Add, Clip, Conv, Flatten, Gemm. " in text
    assert text.endswith(
        f"{DROP}, or export the model again with fixed image sizes and a newer opset."
    )


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"^bad.onnx cannot be quantized to int8: got DecodeError"):
        quantize(tmp_path / "bad.onnx")


def test_weights_that_are_no_numbers_are_refused(model: Path) -> None:
    weight = tiny_onnx.weights(model)["w1"].copy()
    weight[0, 0, 0, 0] = np.nan
    tiny_onnx.replace_weight(model, "w1", weight)
    with pytest.raises(ModelError, match=r"^model.onnx cannot be quantized to int8: got "):
        quantize(model)


def test_an_answer_that_is_no_number_is_refused(model: Path, tmp_path: Path) -> None:
    bias = tiny_onnx.weights(model)["gb"].copy()
    bias[0] = np.inf
    tiny_onnx.replace_weight(model, "gb", bias)
    with pytest.raises(ModelError) as caught:
        static_int8._check_runs(model, onnx.load(model), tiny_onnx.images(4))
    assert str(caught.value) == (
        "model.onnx: the int8 form answers with values that are no numbers: got 4 of 12; every "
        "logit is finite. Fix: look for weights that are not finite in the model, or drop the int8 "
        "targets."
    )
