"""Vela for real: installed when it is missing (100 MB), then compile for three Ethos-U NPUs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import operator_nets
import pytest
import tiny_onnx

from fettle import plugins
from fettle.errors import ModelError
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import CompileRequest, Floats, ort, vela
from fettle.hardware.targets import Target

TARGETS = ("ethos_u55_128", "ethos_u65_512", "ethos_u85_256")


@pytest.fixture
def _installed() -> None:
    toolchain_environment.install(vela.TOOLCHAIN, say=sys.stderr.write)


def compiled(name: str, model: Path, images: Floats, *, sram_bytes: int | None = None) -> Path:
    target: Target = plugins.resolve("targets", name, where="").TARGET
    device = target.device
    if sram_bytes is not None:
        device = device[: device.index(vela.SRAM_WORD)] + f"{vela.SRAM_WORD} {sram_bytes}"
    request = CompileRequest(device=device, precision="int8", dialect="litert", calibration=images)
    return model.parent / vela.compile_for(model, model.parent, request=request)


@pytest.mark.toolchain
@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("name", TARGETS)
def test_each_ethos_u_runs_the_whole_model_and_says_what_it_takes(
    tmp_path: Path, name: str
) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx", width=32)
    entry = compiled(name, model, tiny_onnx.images(48))
    placed = vela.placement(entry)
    assert (placed.share, placed.fallback) == (1.0, ())
    figures = {one.what: (one.value, one.unit) for one in vela.estimates(entry)}
    assert 1_000 < figures["cycles of an inference"][0] < 100_000
    assert 1 < figures["SRAM in use"][0] < 64
    assert {one.tool for one in vela.estimates(entry)} == {"Vela 5.2.0, a model of the hardware"}
    batch = tiny_onnx.images(60, seed=1)
    answer, wanted = vela.open(entry, threads=1).run(batch), ort.open(model, threads=1).run(batch)
    assert (answer.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.95
    assert {path.name for path in tmp_path.iterdir()} == {
        "given.onnx", "int8.tflite", "model_vela.tflite", "vela.json"
    }  # fmt: skip


@pytest.mark.toolchain
@pytest.mark.usefixtures("_installed")
def test_what_falls_back_to_the_cpu_is_named(tmp_path: Path) -> None:
    model = operator_nets.write("LogAnswer", tmp_path)
    images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    placed = vela.placement(compiled(TARGETS[0], model, images))
    assert [one.partition(" ")[0] for one in placed.fallback] == [
        "DEQUANTIZE", "LOG_SOFTMAX", "QUANTIZE"
    ]  # fmt: skip
    assert placed.share == pytest.approx(5 / 8)


@pytest.mark.toolchain
@pytest.mark.usefixtures("_installed")
def test_a_model_that_the_stated_sram_does_not_hold_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx", width=32)
    with pytest.raises(ModelError) as caught:
        compiled(TARGETS[0], model, tiny_onnx.images(9), sram_bytes=1024)
    assert str(caught.value) == (
        "the NPU's SRAM does not hold the model: got 4 KiB in use, by Vela's allocation; there are "
        "1 KiB (--arena-cache-size in the target's record). Fix: prune more channels, or lower "
        "preprocess.size_px (params.yaml), or name a device with more SRAM."
    )


@pytest.mark.toolchain
@pytest.mark.usefixtures("_installed")
def test_a_device_that_vela_does_not_know_is_told_in_its_words(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    request = CompileRequest(
        device="--accelerator-config ethos-u99-1",
        precision="int8",
        dialect="litert",
        calibration=tiny_onnx.images(9),
    )
    told = r"^Vela could not compile the model: got RuntimeError: vela: .*ethos-u99-1"
    with pytest.raises(ModelError, match=told):
        vela.compile_for(model, tmp_path, request=request)


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    with pytest.raises(ModelError) as caught:
        vela.compile(model, tmp_path)
    assert str(caught.value) == (
        "Vela compiles whole int8 alone: got given.onnx, and no calibration images; an Ethos-U "
        "computes in integers. Fix: take a target of precision int8 and dialect litert."
    )
