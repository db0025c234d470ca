"""QNN for real: int8 in Hexagon's dialect through its x86 emulator, other dialects refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx
from onnx import helper

from fettle.errors import ModelError
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import Placement, ort, qnn
from fettle.quantize.quantizers import calibrated_int8

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    toolchain_environment.install(qnn.TOOLCHAIN, say=sys.stderr.write)


def int8(folder: Path, dialect: str) -> tuple[Path, Path]:
    """Return a float classifier and its int8 form in a dialect."""
    folder.mkdir(exist_ok=True)
    model = tiny_onnx.classifier(folder / "float.onnx", width=32)
    images = tiny_onnx.images(96)
    calibrated_int8.apply(
        model,
        folder / "int8.onnx",
        batches=[images[:64]],
        held_out=images[64:],
        calibrate="minmax",
        weight_bits=8,
        disagreement_max=0.1,
        dialect=dialect,
    )
    return model, folder / "int8.onnx"


def test_hexagon_s_answers_agree_with_the_float_model_s(tmp_path: Path) -> None:
    model, quantized = int8(tmp_path, "qdq_u8s8_whole")
    session = qnn.open(tmp_path / qnn.compile(quantized, tmp_path), threads=1)
    batch = tiny_onnx.images(60, seed=1)
    wanted = ort.open(model, threads=1).run(batch)
    answer = session.run(batch)
    assert session.input_shape == (1, 1, 8, 8)
    assert (answer.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95
    assert np.abs(answer - wanted).max() < 0.1 * np.abs(wanted).max()


def test_all_of_it_is_placed_on_the_npu(tmp_path: Path) -> None:
    _, quantized = int8(tmp_path, "qdq_u8s8_whole")
    entry = tmp_path / qnn.compile(quantized, tmp_path)
    assert qnn.placement(entry) == Placement(share=1.0)
    assert (tmp_path / "model_qnn.bin").stat().st_size > 1000


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ("qdq_u8s8", "got an answer in float behind Gemm; qdq_u8s8_whole: "),
        ("qdq_s8s8_symmetric", "got activations in int8; qdq_u8s8_whole: "),
    ],
)
def test_another_dialect_is_refused_before_it_is_compiled(
    tmp_path: Path, dialect: str, told: str
) -> None:
    _, quantized = int8(tmp_path, dialect)
    with pytest.raises(ModelError) as caught:
        qnn.compile(quantized, tmp_path)
    assert str(caught.value).startswith(
        "int8.onnx is not in the int8 dialect that Hexagon takes: " + told
    )
    assert not (tmp_path / qnn.ENTRY).exists()


def test_an_operator_that_the_npu_lacks_is_named(tmp_path: Path) -> None:
    _, quantized = int8(tmp_path, "qdq_u8s8_whole")
    proto = onnx.load(quantized)
    first = next(node for node in proto.graph.node if node.input[0] == "input")
    first.input[0] = "lowered"
    proto.graph.node.insert(0, helper.make_node("Mish", ["input"], ["lowered"], name="a_mish"))
    onnx.save(proto, quantized)
    with pytest.raises(ModelError, match=r"^Qualcomm QNN could not compile the model: ") as caught:
        qnn.compile(quantized, tmp_path)
    assert "{ name: a_mish, type: Mish }" in str(caught.value)


def test_a_truncated_context_is_refused(tmp_path: Path) -> None:
    _, quantized = int8(tmp_path, "qdq_u8s8_whole")
    entry = tmp_path / qnn.compile(quantized, tmp_path)
    binary = tmp_path / "model_qnn.bin"
    binary.write_bytes(binary.read_bytes()[:-20000])
    with pytest.raises(ModelError, match=r"^Qualcomm QNN could not "):
        qnn.open(entry, threads=1).run(tiny_onnx.images(1))
