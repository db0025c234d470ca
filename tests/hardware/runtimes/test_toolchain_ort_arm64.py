"""ONNX Runtime for arm64 for real: installed when it is missing (105 MB), then answers in qemu."""

from __future__ import annotations

import sys
from pathlib import Path

import int8_file
import numpy as np
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import ort, ort_arm64
from fettle.hardware.toolchain_facts import toolchain_facts

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    toolchain_environment.install(ort_arm64.TOOLCHAIN, say=sys.stderr.write)


def test_its_answers_are_x86_s_but_for_rounding(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx", width=32)
    int8 = tmp_path / "int8.onnx"
    int8_file.write(model, int8, batches=[tiny_onnx.images(48)], calibrate="minmax")
    batch = tiny_onnx.images(720)
    for path, most in ((model, 1e-4), (int8, 2e-3)):  # int8: a sum that lies on a rounding edge
        here = ort.open(path, threads=1).run(batch)
        there = ort_arm64.open(path, threads=1).run(batch)
        assert np.abs(there - here).max() <= most, path.name
        assert (there.argmax(1) == here.argmax(1)).all()


def test_what_it_cannot_load_is_refused_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "given.onnx").write_bytes(b"no model")
    with pytest.raises(
        ModelError, match=r"ONNX Runtime for arm64 could not compile the model: got"
    ):
        ort_arm64.compile(tmp_path / "given.onnx", tmp_path)


def test_its_facts_name_the_wheel_the_emulator_and_the_other_machines_c_library() -> None:
    facts = toolchain_facts("arm64_ort_int8")
    assert facts["python"] == "3.11 (aarch64)"
    assert facts["packages"]["onnxruntime"] == "1.27.0"
    assert str(facts["packages"]["qemu-user-static"]).startswith("1:7.2")
    assert facts["packages"]["libc6"]


def test_the_environment_holds_one_emulator_and_nothing_of_apt() -> None:
    place = toolchain_environment.folder(ort_arm64.TOOLCHAIN)
    assert [one.name for one in (place / "qemu/usr/bin").iterdir()] == ["qemu-aarch64-static"]
    assert not (place / "apt").exists()
