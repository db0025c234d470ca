from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_onnx

from fettle.errors import ModelError, TargetError
from fettle.hardware.runtimes import ort

WHAT_FITS = "; a model has one float32 input [N, C, H, W] and gives logits [N, classes]"
CHECK = "Fix: check the file with onnx's `check-model`, or export it again."


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx.classifier(tmp_path / "given.onnx")


def test_the_entry_is_the_onnx_itself(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert ort.compile(model, tmp_path / "out") == "model.onnx"
    assert (tmp_path / "out" / "model.onnx").read_bytes() == model.read_bytes()


def test_bfloat16_is_refused_before_a_file_is_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError) as caught:
        ort.compile(model, tmp_path / "out", bf16=True)
    assert str(caught.value) == (
        "ONNX Runtime does not compute in bfloat16 on the CPU: got a target of precision bf16; its "
        "CPU kernels are fp32 and int8. Fix: take x86_openvino_bf16 (params.yaml: targets)."
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_unoptimised_runs_the_graph_as_it_is_written(model: Path) -> None:
    batch = tiny_onnx.images(7)
    plain, fused = ort.unoptimised(model, threads=1), ort.open(model, threads=1)
    assert plain.run(batch) == pytest.approx(fused.run(batch), abs=1e-5)
    level = plain._session.get_session_options().graph_optimization_level
    assert level == ort.toolkit().GraphOptimizationLevel.ORT_DISABLE_ALL


def test_a_batch_is_answered_as_its_images_one_by_one(model: Path) -> None:
    session = ort.open(model, threads=1)
    batch = tiny_onnx.images(7)
    single = np.concatenate([session.run(batch[at : at + 1]) for at in range(7)])
    assert session.run(batch) == pytest.approx(single, abs=1e-5)
    assert (session.run(batch).argmax(axis=1) == tiny_onnx.labels(7)).all()


def test_the_number_of_threads_is_the_one_asked_for(model: Path) -> None:
    for threads in (1, 2):
        options = ort.open(model, threads=threads)._session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)


@pytest.mark.parametrize(
    ("shape", "dtype", "got"),
    [
        ((2, 3, 8, 8), "float32", "float32 [2, 3, 8, 8]"),
        ((2, 1, 9, 8), "float32", "float32 [2, 1, 9, 8]"),
        ((2, 64), "float32", "float32 [2, 64]"),
        ((2, 1, 8, 8), "float64", "float64 [2, 1, 8, 8]"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    model: Path, shape: tuple[int, ...], dtype: str, got: str
) -> None:
    with pytest.raises(ModelError) as caught:
        ort.open(model, threads=1).run(np.zeros(shape, dtype=dtype))
    assert str(caught.value) == (
        f"the batch does not fit the model: got {got}; it takes float32 [any, 1, 8, 8]. "
        "Fix: set preprocess.size_px and preprocess.channels to what the model takes."
    )


def test_a_model_of_batch_one_takes_any_batch(tmp_path: Path) -> None:
    fixed = ort.open(tiny_onnx.classifier(tmp_path / "one.onnx", batch=1), threads=1)
    free = ort.open(tiny_onnx.classifier(tmp_path / "free.onnx"), threads=1)
    batch = tiny_onnx.images(5)
    assert fixed.input_shape == (1, 1, 8, 8)
    assert fixed.run(batch) == pytest.approx(free.run(batch), abs=1e-5)


def test_a_model_of_another_fixed_batch_takes_that_only(tmp_path: Path) -> None:
    session = ort.open(tiny_onnx.classifier(tmp_path / "four.onnx", batch=4), threads=1)
    assert session.run(tiny_onnx.images(4)).shape == (4, 3)
    with pytest.raises(ModelError) as caught:
        session.run(tiny_onnx.images(5))
    assert str(caught.value) == (
        "the model takes one batch size only: got 5 images; its batch is fixed at 4. "
        "Fix: export the model with a free batch dimension, or with batch 1."
    )


def test_a_model_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    import onnx

    path = tiny_onnx.classifier(tmp_path / "map.onnx")
    proto = onnx.load(path)
    answer = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, None)
    proto.graph.output[0].CopyFrom(answer)
    onnx.save(proto, path)
    with pytest.raises(ModelError) as caught:
        ort.open(path, threads=1).run(tiny_onnx.images(2))
    assert str(caught.value).startswith(
        "the model does not answer with one row of logits for each image: got [2, 4, 8, 8] for a "
        "batch of 2; a classifier gives [images, classes]. Fix: check preprocess.size_px"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        ort.open(tmp_path / "none.onnx", threads=1)
    assert str(caught.value) == (
        f"no model file none.onnx: got nothing at {tmp_path / 'none.onnx'}. Fix: name the entry "
        "file that `compile` made, or run `fettle run` again."
    )


def test_a_file_that_is_no_onnx_is_refused_with_the_runtimes_words(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError) as caught:
        ort.compile(tmp_path / "bad.onnx", tmp_path)
    text = str(caught.value)
    assert text.startswith("ONNX Runtime cannot load bad.onnx: got [ONNXRuntimeError] : 7 : ")
    assert text.endswith(f"{WHAT_FITS}. {CHECK}")
    assert "\n" not in text


def test_a_model_with_two_inputs_is_refused_when_it_runs(tmp_path: Path) -> None:
    import onnx

    path = tiny_onnx.classifier(tmp_path / "two.onnx")
    proto = onnx.load(path)
    half = onnx.helper.make_tensor_value_info("half", onnx.TensorProto.FLOAT, [1])
    proto.graph.input.append(half)
    proto.graph.node[-1].output[0] = "whole"
    proto.graph.node.append(onnx.helper.make_node("Mul", ["whole", "half"], ["logits"]))
    onnx.save(proto, path)
    with pytest.raises(ModelError) as caught:
        ort.open(path, threads=1).run(tiny_onnx.images(2))
    text = str(caught.value)
    assert text.startswith("ONNX Runtime cannot run the model: got Required inputs (['half'])")
    assert text.endswith(f"{WHAT_FITS}. {CHECK}")


def test_a_silent_change_of_device_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ort.toolkit()

    class Wanders:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def get_providers(self) -> list[str]:
            return ["OpenVINOExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(
        ort, "toolkit", lambda: SimpleNamespace(**{**vars(real), "InferenceSession": Wanders})
    )
    with pytest.raises(TargetError) as caught:
        ort.open(model, threads=1)
    assert str(caught.value) == (
        "ONNX Runtime chose another device than asked: got OpenVINOExecutionProvider, "
        "CPUExecutionProvider; this target runs on CPUExecutionProvider only. Fix: keep one of "
        "onnxruntime, onnxruntime-gpu and onnxruntime-openvino installed."
    )
