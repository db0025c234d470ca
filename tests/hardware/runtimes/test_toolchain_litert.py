"""LiteRT for real: installed when it is missing (90 MB), then convert, quantize, open, time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import operator_nets
import pytest
import tiny_onnx
from onnx import helper, numpy_helper

from fettle import plugins
from fettle.errors import ModelError
from fettle.hardware import latency_measurement, peak_memory
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.runtimes import CompileRequest, Floats, litert, ort
from fettle.hardware.toolchain_facts import toolchain_facts
from fettle.models import export_onnx

pytestmark = pytest.mark.toolchain
FAMILIES = {"small_cnn": 28, "resnet": 33, "efficientnet_lite": 32}


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    toolchain_environment.install(litert.TOOLCHAIN, say=sys.stderr.write)


def compiled(model: Path, calibration: Floats | None = None, threads: int = 1) -> IsolatedSession:
    """Compile beside the model; int8 where there are calibration images."""
    out = model.parent / ("float" if calibration is None else "int8")
    out.mkdir()
    request = CompileRequest(device="", precision="int8", dialect="litert", calibration=calibration)
    if calibration is None:
        entry = litert.compile(model, out)
    else:
        entry = litert.compile_for(model, out, request=request)
    return litert.open(out / entry, threads=threads)


def photos(count: int, channels: int, side: int, *, scale: float = 1.0) -> Floats:
    rng = np.random.default_rng(0)
    images: Floats = rng.normal(scale=scale, size=(count, channels, side, side)).astype(np.float32)
    return images


def relative(answer: Floats, model: Path, batch: Floats) -> float:
    """The largest difference from ONNX Runtime, as a share of the largest logit."""
    wanted = ort.open(model, threads=1).run(batch)
    return float(np.abs(answer - wanted).max() / np.abs(wanted).max())


def family(name: str, folder: Path) -> Path:
    plugin = plugins.resolve("families", name, where="")
    side = FAMILIES[name]
    net = plugin.build(plugin.Params(), classes=10, channels=3, size_px=side, project=folder)
    export_onnx.export(net, channels=3, size_px=side, out=folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_s_float_form_answers_as_in_onnx_runtime(tmp_path: Path, name: str) -> None:
    model = family(name, tmp_path)
    session, batch = compiled(model), photos(5, 3, FAMILIES[name])
    assert session.input_shape == (None, 3, FAMILIES[name], FAMILIES[name])
    assert relative(session.run(batch), model, batch) < 1e-5
    assert relative(session.run(batch[:1]), model, batch[:1]) < 1e-5


@pytest.mark.parametrize("name", ["Patchwork", "Attention", "LogAnswer"])
def test_every_operator_of_the_table_answers_as_in_onnx_runtime(tmp_path: Path, name: str) -> None:
    model = operator_nets.write(name, tmp_path)
    batch = photos(5, 3, operator_nets.SIDE)
    assert relative(compiled(model).run(batch), model, batch) < 1e-5


def test_a_batch_that_cannot_be_free_is_fixed_at_one_image(tmp_path: Path) -> None:
    model = operator_nets.write("Shuffle", tmp_path)  # TRANSPOSE_CONV names its answer's size
    session, batch = compiled(model), photos(5, 3, operator_nets.SIDE)
    assert session.input_shape == (1, 3, operator_nets.SIDE, operator_nets.SIDE)
    assert relative(session.run(batch), model, batch) < 1e-5


def test_the_int8_form_is_whole_and_answers_nearly_as_the_float_one(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx", width=32)
    session, batch = compiled(model, tiny_onnx.images(48)), tiny_onnx.images(300, seed=1)
    answer, wanted = session.run(batch), ort.open(model, threads=1).run(batch)
    assert (answer.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.98
    assert len(np.unique(answer)) <= 256  # the answer itself is int8
    size = (tmp_path / "int8" / litert.ENTRY).stat().st_size
    assert size < 0.45 * model.stat().st_size


def test_its_ranges_are_the_least_and_largest_value_and_no_moving_average(tmp_path: Path) -> None:
    model = family("small_cnn", tmp_path)
    usual = photos(60, 3, 28, scale=0.1)
    rare = photos(4, 3, 28, scale=1.0)  # seen first: a moving average would forget them
    session = compiled(model, np.concatenate([rare, usual]))
    assert relative(session.run(rare), model, rare) < 0.05


@pytest.mark.parametrize("bias", [0.3, 5.0])
@pytest.mark.parametrize("weight", [0, 1e-30, 1e-7])
def test_a_dead_channel_keeps_its_bias(tmp_path: Path, weight: float, bias: float) -> None:
    model, batch = dead_channel(tmp_path / "given.onnx", weight, bias), tiny_onnx.images(48)
    assert relative(compiled(model, batch).run(batch), model, batch) < 0.05


def dead_channel(path: Path, weight: float, bias: float) -> Path:
    """Write Conv, a pool and a Gemm that answers little but the second channel, its bias alone."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(scale=0.4, size=(4, 1, 3, 3)).astype(np.float32)
    kernels[1] *= weight
    answers = np.array([[0.01, 1, 0, 0], [0.01, -1, 0, 0], [0.02, 2, 0, 0]], np.float32)
    constants = {"w": kernels, "b": np.array([0.1, bias, -0.1, 0.2], np.float32), "g": answers}
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["c"], "conv", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "g"], ["logits"], "gemm", transB=1),
    ]
    value = helper.make_tensor_value_info
    ends = [value("input", 1, ["n", 1, 8, 8])], [value("logits", 1, ["n", 3])]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "dead", *ends, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("int8", [False, True])
def test_compiling_twice_gives_the_same_bytes(tmp_path: Path, int8: bool) -> None:
    files = []
    for at in range(2):
        folder = tmp_path / str(at)
        folder.mkdir()
        compiled(tiny_onnx.classifier(folder / "given.onnx"), tiny_onnx.images(9) if int8 else None)
        files.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert files[0] == files[1]
    assert set(files[0]) == {"given.onnx", litert.ENTRY}


def test_it_is_timed_and_weighed_in_its_own_process(tmp_path: Path) -> None:
    session = compiled(tiny_onnx.classifier(tmp_path / "given.onnx"), threads=2)
    bound = session.bind(tiny_onnx.images(1))
    times = latency_measurement.interleave({"litert": bound}, rounds=20, seed=0)["litert"]
    assert 0 < np.median(times) < 50
    entry, shape = tmp_path / "float" / litert.ENTRY, (1, 1, 8, 8)
    found = peak_memory.peak(runtime=litert.__name__, entry=entry, threads=1, shape=shape)
    assert 0 < found.value < 100e6


def test_operators_that_it_has_not_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        compiled(operator_nets.write("Fourier", tmp_path))
    assert str(caught.value).startswith(
        "LiteRT could not compile the model: got ValueError: there is no TFLite form here of the "
        "operators Sin;"
    )


def test_bfloat16_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    with pytest.raises(ModelError, match=r"^LiteRT is not asked to compute in bfloat16 here: got "):
        litert.compile(model, tmp_path, bf16=True)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    compiled(tiny_onnx.classifier(tmp_path / "given.onnx", width=32))
    entry = tmp_path / "float" / litert.ENTRY
    entry.write_bytes(entry.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"^LiteRT could not open the model: got "):
        litert.open(entry, threads=1)


def test_its_versions_are_stated_from_its_own_environment() -> None:
    facts = toolchain_facts("x86_litert_int8")
    assert facts["packages"] == {
        "ai-edge-litert": "2.3.0", "ai-edge-quantizer": "0.10.0", "onnx": "1.23.2"
    }  # fmt: skip
    assert facts["lock"] == toolchain_environment.lock_digest(litert.TOOLCHAIN)
