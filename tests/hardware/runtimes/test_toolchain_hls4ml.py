"""hls4ml for real: fixed point simulated bit by bit, its width found by a sweep."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from onnx import TensorProto, helper, numpy_helper, save

from fettle.errors import ModelError
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import CompileRequest, hls4ml, ort

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    toolchain_environment.install(hls4ml.TOOLCHAIN, say=sys.stderr.write)


def classifier(path: Path, *, hidden: int = 8) -> Path:
    """Write Conv, Relu, Flatten, Gemm: its logits are random projections of the image."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(scale=0.4, size=(hidden, 1, 3, 3)),
        "b": rng.normal(scale=0.1, size=hidden),
        "v": rng.normal(scale=0.5, size=(hidden * 9, 3)),
        "c": rng.normal(scale=0.1, size=3),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["h"], strides=[2, 2]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fettle",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value.astype(np.float32), n) for n, value in weights.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def asked(images: int) -> CompileRequest:
    return CompileRequest(
        device="xc7z020clg400-1",
        precision="fixed",
        dialect="ap_fixed",
        calibration=tiny_onnx.images(images),
    )


def test_the_narrowest_width_that_keeps_the_answers_is_taken(tmp_path: Path) -> None:
    model = classifier(tmp_path / "given.onnx")
    entry = tmp_path / hls4ml.compile_for(model, tmp_path, request=asked(90))
    about = json.loads(entry.read_text())
    *before, last = about["tried"]
    assert last["kept"] >= 0.99
    assert all(one["kept"] < 0.99 or one["cosine"] < 0.99 for one in before)
    assert (about["width"], about["type"]) == (last["width"], f"ap_fixed<{last['width']},"
                                               f"{last['integer']}>")  # fmt: skip
    batch = tiny_onnx.images(120, seed=5)
    wanted = ort.open(model, threads=1).run(batch)
    found = hls4ml.open(entry, threads=1).run(batch)
    assert (wanted.argmax(axis=1) == found.argmax(axis=1)).mean() >= 0.95
    step = 2.0 ** (last["integer"] - last["width"])
    exact = found / step**2  # products of two fixed-point numbers: whole steps squared
    assert exact == pytest.approx(np.rint(exact), abs=1e-6)
    figures = {one.what: one.value for one in hls4ml.estimates(entry)}
    assert figures["block RAM that the weights take"] == about["weights"] * about["width"] / 1000
    assert (tmp_path / "project" / "build_prj.tcl").is_file()


def test_a_model_that_the_chip_does_not_hold_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    model = classifier(tmp_path / "given.onnx", hidden=20_000)
    with pytest.raises(ModelError) as caught:
        hls4ml.compile_for(model, tmp_path, request=asked(3))
    assert str(caught.value).startswith(
        "xc7z020clg400-1 does not hold the model: got needs 5,920 kbit of block RAM for 740,003 "
        "weights of 8 bits; the chip has 4,900 kbit."
    )


def test_an_operator_that_it_lacks_is_named(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    with pytest.raises(ModelError, match=r"^hls4ml could not compile the model: got .*: Clip"):
        hls4ml.compile_for(model, tmp_path, request=asked(3))
