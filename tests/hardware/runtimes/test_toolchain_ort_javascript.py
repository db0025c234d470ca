"""ONNX Runtime in JavaScript for real: installed by npm, its answers are ONNX Runtime's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware import latency_measurement, peak_memory
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.runtimes import ort, ort_node, ort_web

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module", params=[ort_web, ort_node], ids=["web", "node"])
def runtime(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.param
    toolchain_environment.install(found.TOOLCHAIN, say=sys.stderr.write)
    return found


def test_its_logits_are_onnx_runtime_s(runtime: ModuleType, tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx", width=32)
    session = runtime.open(tmp_path / runtime.compile(model, tmp_path), threads=1)
    batch = tiny_onnx.images(64)
    wanted = ort.open(model, threads=1).run(batch)
    assert session.run(batch) == pytest.approx(wanted, abs=1e-4)
    assert session.run(batch[:1]) == pytest.approx(wanted[:1], abs=1e-4)
    assert session.input_shape == (None, 1, 8, 8)


def test_it_is_timed_and_weighed_in_node(runtime: ModuleType, tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    session = runtime.open(tmp_path / runtime.compile(model, tmp_path), threads=1)
    bound = session.bind(tiny_onnx.images(1))
    times = latency_measurement.interleave({"js": bound}, rounds=20, seed=0)["js"]
    assert 0 < np.median(times) < 50
    found = peak_memory.peak(
        runtime=runtime.__name__, entry=tmp_path / runtime.ENTRY, threads=1, shape=(1, 1, 8, 8)
    )
    assert 0 < found.value < 300e6


def test_a_file_that_is_no_model_is_told(runtime: ModuleType, tmp_path: Path) -> None:
    entry = tmp_path / runtime.ENTRY
    entry.write_bytes(b"no model at all" * 100)
    with pytest.raises(ModelError, match=rf"^{runtime.TOOLCHAIN.title} could not open the model: "):
        runtime.open(entry, threads=1)


OWNER = """
import sys, time
from fettle.hardware.isolated import isolated_session
from fettle.hardware.runtimes import {name} as runtime
worker = isolated_session.start(runtime.TOOLCHAIN)
worker.ask("toolkit")
print(worker.pid, flush=True)
time.sleep(600)
"""


def test_no_process_is_left_when_it_is_closed_or_its_owner_is_killed(runtime: ModuleType) -> None:
    with isolated_session.start(runtime.TOOLCHAIN) as worker:
        worker.ask("toolkit")
    assert gone(worker.pid)
    code = OWNER.format(name=runtime.TOOLCHAIN.name)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        group = int(owner.stdout.readline())
        owner.kill()  # it has no time to say good-bye
    assert gone(group)


def gone(group: int) -> bool:
    """Wait for all of a process group to end."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_the_browser_s_page_comes_with_all_that_it_loads(tmp_path: Path) -> None:
    toolchain_environment.install(ort_web.TOOLCHAIN, say=sys.stderr.write)
    ort_web.compile(tiny_onnx.classifier(tmp_path / "given.onnx"), tmp_path)
    names = {path.name for path in tmp_path.iterdir()} - {"given.onnx"}
    assert names == {
        "model.onnx", "index.html", "classify.mjs", "resize.mjs", "ort.wasm.min.mjs",
        "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    }  # fmt: skip
    (figure,) = ort_web.estimates(tmp_path / "model.onnx")
    assert (figure.what, figure.unit) == ("latency, median", "ms")
    assert 0 < figure.value < 100
    assert figure.tool.startswith("onnxruntime-web 1.30.0, WebAssembly under this machine's Node")
