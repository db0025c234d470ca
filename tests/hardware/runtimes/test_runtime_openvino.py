from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import int8_file
import numpy as np
import pytest
import tiny_onnx

from fettle.errors import ModelError, TargetError
from fettle.hardware.runtimes import openvino, ort

pytest.importorskip("openvino._pyopenvino", reason="needs openvino")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx.classifier(tmp_path / "given.onnx", width=8)


def compiled(model: Path, out: Path) -> Path:
    out.mkdir()
    return out / openvino.compile(model, out)


def test_it_writes_the_same_two_files_in_any_folder(model: Path, tmp_path: Path) -> None:
    folders = [compiled(model, tmp_path / name).parent for name in ("a", "a folder elsewhere")]
    for name in ("model.xml", "model.bin"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert sorted(path.name for path in folders[0].iterdir()) == ["model.bin", "model.xml"]


def test_fp32_answers_as_onnx_runtime_does(model: Path, tmp_path: Path) -> None:
    session = openvino.open(compiled(model, tmp_path / "out"), threads=1)
    batch = tiny_onnx.images(30)
    # 1e-3 tells float32 from bfloat16, whose 8 bits of precision give about 1e-2 here
    assert session.run(batch) == pytest.approx(ort.open(model, threads=1).run(batch), abs=1e-4)


def test_it_reads_the_int8_file_that_onnx_runtime_reads(model: Path, tmp_path: Path) -> None:
    int8 = tmp_path / "int8.onnx"
    int8_file.write(model, int8, batches=[tiny_onnx.images(60)], calibrate="minmax")
    batch = tiny_onnx.images(60, seed=1)
    ours = openvino.open(compiled(int8, tmp_path / "out"), threads=1).run(batch)
    theirs = ort.open(int8, threads=1).run(batch)
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_the_weights_are_not_rounded_to_fp16(model: Path, tmp_path: Path) -> None:
    entry = compiled(model, tmp_path / "out")
    floats = sum(w.size for w in tiny_onnx.weights(model).values())
    assert (entry.parent / "model.bin").stat().st_size >= 4 * (floats - 2)  # but Clip's ends


def test_calls_from_several_threads_queue(model: Path, tmp_path: Path) -> None:
    session = openvino.open(compiled(model, tmp_path / "out"), threads=1)
    batches = [tiny_onnx.images(4, seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(session.run, batches))
    assert np.concatenate(together) == pytest.approx(
        np.concatenate([session.run(batch) for batch in batches])
    )


def test_an_answer_is_the_callers_own(model: Path, tmp_path: Path) -> None:
    session = openvino.open(compiled(model, tmp_path / "out"), threads=1)
    first = session.run(tiny_onnx.images(2))
    kept = first.copy()
    session.run(tiny_onnx.images(2, seed=9))
    assert (first == kept).all()


def test_wrong_channels_are_refused_before_openvino_takes_them(model: Path, tmp_path: Path) -> None:
    session = openvino.open(compiled(model, tmp_path / "out"), threads=1)
    with pytest.raises(ModelError) as caught:
        session.run(np.zeros((2, 3, 8, 8), dtype=np.float32))
    assert str(caught.value) == (
        "the batch does not fit the model: got float32 [2, 3, 8, 8]; it takes float32 "
        "[any, 1, 8, 8]. Fix: set preprocess.size_px and preprocess.channels to what the model "
        "takes."
    )


def test_a_model_it_cannot_read_is_refused_with_the_operator(tmp_path: Path) -> None:
    import onnx

    path = tiny_onnx.classifier(tmp_path / "odd.onnx")
    proto = onnx.load(path)
    proto.graph.node[1].CopyFrom(
        onnx.helper.make_node("Wobble", ["c1", "low"], ["r1"], domain="nowhere")
    )
    proto.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    onnx.save(proto, path)
    with pytest.raises(ModelError) as caught:
        openvino.compile(path, tmp_path)
    text = str(caught.value)
    assert text.startswith("OpenVINO cannot read odd.onnx: got ")
    assert "Wobble" in text
    assert text.endswith(
        "; a model has one float32 input [N, C, H, W] and gives logits [N, classes]. Fix: drop the "
        "OpenVINO targets for this model, or replace that operator."
    )


def test_another_precision_than_asked_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rounds:
        def compile_model(self, *_: Any) -> Any:
            shown = SimpleNamespace(to_string=lambda: "bf16")
            return SimpleNamespace(get_property=lambda _: shown)

        def read_model(self, _: str) -> Any:
            return SimpleNamespace(has_rt_info=lambda _: False)

        def get_property(self, *_: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(openvino, "toolkit", lambda: SimpleNamespace(Core=Rounds))
    with pytest.raises(TargetError) as caught:
        openvino.open(model, threads=1)
    assert str(caught.value) == (
        "OpenVINO would change the precision of the model: got bf16; what is not int8 is computed "
        "in f32. Fix: install the version this project is tested with: pip install "
        "'fettle-mlops[openvino]'."
    )


def rounds_to_bf16() -> bool:
    return "BF16" in openvino.toolkit().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.skipif(not rounds_to_bf16(), reason="needs AVX512-BF16 or AMX")
def test_a_file_made_for_bfloat16_is_computed_so_by_whoever_opens_it(
    model: Path, tmp_path: Path
) -> None:
    exact = openvino.open(compiled(model, tmp_path / "fp32"), threads=1)
    (tmp_path / "bf16").mkdir()
    entry = tmp_path / "bf16" / openvino.compile(model, tmp_path / "bf16", bf16=True)
    batch = tiny_onnx.images(30)
    wanted = exact.run(batch)
    off = np.abs(openvino.open(entry, threads=1).run(batch) - wanted).max()
    # bfloat16 keeps 8 bits: a few thousandths, where float32 is off by 1e-4 at most (see above)
    assert 1e-3 < off < 0.05 * np.abs(wanted).max()
    kinds = {kernel.kind for kernel in profiled(entry)}
    assert "Convolution" in kinds


def profiled(entry: Path) -> list[Any]:
    profiler = openvino.profile(entry, threads=1)
    profiler.run(tiny_onnx.images(1))
    return profiler.kernels()


def test_a_cpu_without_bfloat16_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "model.xml"
    real = openvino.toolkit()
    marked = real.Core().read_model(str(model))
    marked.set_rt_info("bf16", openvino.PRECISION)
    real.save_model(marked, str(entry))

    class Older:
        def read_model(self, path: str) -> Any:
            return real.Core().read_model(path)

        def get_property(self, *_: str) -> list[str]:
            return ["INT8", "FP32"]

    monkeypatch.setattr(openvino, "toolkit", lambda: SimpleNamespace(Core=Older))
    with pytest.raises(ModelError) as caught:
        openvino.open(entry, threads=1)
    assert str(caught.value) == (
        "this CPU does not compute in bfloat16: got OpenVINO finds FP32, INT8; bf16 takes "
        "AVX512-BF16 or AMX (`lscpu` says avx512_bf16 or amx_bf16). Fix: drop x86_openvino_bf16 "
        "(params.yaml: targets), or run on such a CPU."
    )


def test_when_it_is_absent_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("fettle.hardware.runtimes.metadata.version", absent)
    found = openvino.available()
    assert not found.ok
    assert found.version is None
    assert found.reason == "the package openvino is not installed"
    assert found.install == "pip install 'fettle-mlops[openvino]'"


def test_using_it_when_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(TargetError) as caught:
        openvino.toolkit()
    assert str(caught.value) == (
        "OpenVINO is not installed: got import of openvino halted; None in sys.modules. Fix: run "
        "pip install 'fettle-mlops[openvino]', or drop its targets."
    )


WATCH = """
import os, socket, sys
seen = []
class Watched(socket.socket):
    def connect(self, address):
        seen.append(address); raise OSError("no network in this test")
socket.socket = Watched
real = socket.getaddrinfo
def look_up(host, *args, **kwargs):
    open(sys.argv[3], "a").write(f"{host}\\n"); raise OSError("no network in this test")
socket.getaddrinfo = look_up
from pathlib import Path
from fettle.hardware.runtimes import openvino
entry = openvino.compile(Path(sys.argv[1]), Path(sys.argv[2]))
openvino.open(Path(sys.argv[2]) / entry, threads=1)
print(seen, "openvino_telemetry.main" in sys.modules)
"""


def test_it_neither_phones_home_nor_leaves_an_identifier(model: Path, tmp_path: Path) -> None:
    home, out, log = tmp_path / "home", tmp_path / "out", tmp_path / "lookups"
    home.mkdir()
    out.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(model), str(out), str(log)],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[] False"), done.stderr
    assert list(home.iterdir()) == []
    assert not log.exists()
