"""IREE for real: installed when it is missing (130 MB), then compile, open, time, weigh."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware import latency_measurement, peak_memory
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.runtimes import iree, ort
from fettle.hardware.toolchain_facts import toolchain_facts

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    toolchain_environment.install(iree.TOOLCHAIN, say=sys.stderr.write)


def compiled(folder: Path, *, threads: int = 1) -> tuple[Path, IsolatedSession]:
    model = tiny_onnx.classifier(folder / "given.onnx", width=32)
    entry = folder / iree.compile(model, folder)
    return model, iree.open(entry, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_its_logits_are_onnx_runtime_s(tmp_path: Path, threads: int) -> None:
    model, session = compiled(tmp_path, threads=threads)
    batch = tiny_onnx.images(64)
    wanted = ort.open(model, threads=1).run(batch)
    assert session.run(batch) == pytest.approx(wanted, abs=1e-4)
    assert session.run(batch[:1]) == pytest.approx(wanted[:1], abs=1e-4)
    assert session.input_shape == (None, 1, 8, 8)


def test_a_project_s_path_may_hold_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "Jane's $ 20% project"
    folder.mkdir()
    model, session = compiled(folder)
    batch = tiny_onnx.images(3)
    assert session.run(batch) == pytest.approx(ort.open(model, threads=1).run(batch), abs=1e-4)


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for at in range(2):
        folder = tmp_path / str(at)
        folder.mkdir()
        compiled(folder)
        files.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert files[0] == files[1]
    assert set(files[0]) == {"given.onnx", "model.vmfb", "shape.json"}


def test_it_is_timed_and_weighed_in_its_own_process(tmp_path: Path) -> None:
    _, session = compiled(tmp_path)
    bound = session.bind(tiny_onnx.images(1))
    times = latency_measurement.interleave({"iree": bound}, rounds=20, seed=0)["iree"]
    assert 0 < np.median(times) < 50
    entry, shape = tmp_path / iree.ENTRY, (1, 1, 8, 8)
    found = peak_memory.peak(runtime=iree.__name__, entry=entry, threads=1, shape=shape)
    assert (found.unit, found.n) == ("bytes", 1)
    assert 0 < found.value < 100e6


def test_a_model_that_it_cannot_compile_is_told_by_its_tools_own_error(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(tiny_onnx.classifier(tmp_path / "given.onnx"))
    model.graph.node[0].op_type = "ConvTransposeOfTheFuture"
    onnx.save(model, tmp_path / "given.onnx")
    with pytest.raises(ModelError, match=r"^IREE could not compile the model: got RuntimeError: "):
        iree.compile(tmp_path / "given.onnx", tmp_path)


def test_a_file_that_is_none_of_its_own_is_told(tmp_path: Path) -> None:
    (tmp_path / iree.ENTRY).write_bytes(b"no module at all" * 100)
    with pytest.raises(ModelError, match=r"^IREE could not open the model: got "):
        iree.open(tmp_path / iree.ENTRY, threads=1)


def test_its_versions_are_stated_from_its_own_environment() -> None:
    facts = toolchain_facts("x86_iree_fp32")
    assert facts["packages"] == {"iree-base-compiler": "3.13.0", "iree-base-runtime": "3.13.0"}
    assert facts["lock"] == toolchain_environment.lock_digest(iree.TOOLCHAIN)
