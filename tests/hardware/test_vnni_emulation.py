from __future__ import annotations

from pathlib import Path

import int8_file
import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware import vnni_emulation
from fettle.hardware.runtimes import ort
from fettle.quantize.ort_quantizer import WeightBits


def one_by_one(
    rows: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    weight: np.ndarray[tuple[int, ...], np.dtype[np.int8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """VPMADDUBSW as Intel's manual writes it, one pair at a time."""
    out = np.zeros((len(rows), weight.shape[1]), np.int64)
    for m in range(len(rows)):
        for n in range(weight.shape[1]):
            for k in range(0, weight.shape[0], 2):
                pair = sum(
                    int(rows[m, at]) * int(weight[at, n])
                    for at in range(k, min(k + 2, weight.shape[0]))
                )
                out[m, n] += min(32767, max(-32768, pair))
    return out


@pytest.mark.parametrize("reduction", [1, 2, 7, 16])
def test_sums_saturate_as_the_instruction_does(reduction: int) -> None:
    rng = np.random.default_rng(reduction)
    rows = rng.choice([0, 1, 128, 254, 255], size=(6, reduction)).astype(np.uint8)
    weight = rng.choice([-128, -127, -1, 0, 64, 127], size=(reduction, 5)).astype(np.int8)
    exact = rows.astype(np.int64) @ weight.astype(np.int64)
    wanted = one_by_one(rows, weight)
    assert (exact + vnni_emulation._correction(rows, weight) == wanted).all()
    assert reduction == 1 or (wanted != exact).any()


def quantized(folder: Path, bits: WeightBits, width: int = 8) -> Path:
    model = tiny_onnx.classifier(folder / "model.onnx", width=width)
    out = folder / f"int{bits}.onnx"
    int8_file.write(
        model, out, batches=[tiny_onnx.images(60)], calibrate="minmax", weight_bits=bits
    )
    return out


def test_without_saturation_it_answers_as_the_runtime(tmp_path: Path) -> None:
    model, images = quantized(tmp_path, 8), tiny_onnx.images(70, seed=4)
    found = vnni_emulation.emulate(model, images)
    wanted = ort.open(model, threads=1).run(images)
    assert np.abs(found.exact - wanted).max() < 0.01 * np.abs(wanted).max()
    assert found.exact.shape == found.saturated.shape == wanted.shape


def test_eight_bits_saturate_and_seven_do_not(tmp_path: Path) -> None:
    images = tiny_onnx.images(40, seed=4, noise=0.9)
    eight = vnni_emulation.emulate(quantized(tmp_path, 8, width=64), images)
    seven = vnni_emulation.emulate(quantized(tmp_path, 7, width=64), images)
    assert "conv2" not in eight.layers  # depthwise: multiplied in 32 bits
    assert 0 < eight.layers["gemm"] <= 1
    assert (eight.saturated != eight.exact).any()
    assert seven.layers == {}
    assert (seven.saturated == seven.exact).all()


def test_what_cannot_be_followed_is_refused_by_name(tmp_path: Path) -> None:
    path = quantized(tmp_path, 8)
    proto = onnx.load(path)
    node = next(n for n in proto.graph.node if n.name == "conv2")
    node.attribute.append(onnx.helper.make_attribute("auto_pad", "SAME_UPPER"))
    onnx.save(proto, path)
    with pytest.raises(ModelError) as caught:
        vnni_emulation.emulate(path, tiny_onnx.images(4))
    assert str(caught.value) == (
        "the operator Conv cannot be emulated: got auto_pad; two-dimensional convolutions with "
        "explicit pads, and ONNX's own operators. Fix: measure the int8 file on such a CPU instead."
    )
