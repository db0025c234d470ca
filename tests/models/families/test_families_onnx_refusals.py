"""Which ONNX files the family onnx_file refuses, and where it looks for them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from foreign_onnx import adopt, model, refusal, saved, weights
from onnx import TensorProto, helper

from fettle.errors import ModelError, ProjectError
from fettle.local_settings import set_local
from fettle.models.families import onnx_file as family


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"PK not a model")
    with pytest.raises(ModelError) as caught:
        adopt(path)
    text = str(caught.value)
    assert text.startswith("net.onnx is no sound ONNX model: got ")
    assert text.endswith(
        "it must load and pass ONNX's own checker. Fix: export it again, with its weights inside "
        "the file or beside it."
    )


def test_weights_lost_beside_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModelError, match=r"^net\.onnx is no sound ONNX model: got .*net\.data"):
        adopt(path)


def test_two_outputs_are_refused(tmp_path: Path) -> None:
    given = model()
    given.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, [None] * 4))
    assert refusal(given, tmp_path) == (
        "net.onnx has 2 outputs: got scores, p; a classifier here has one output. Fix: cut the "
        "graph with onnx.utils.extract_model to one input and the logits."
    )


def test_an_input_that_is_no_batch_of_float_images_is_refused(tmp_path: Path) -> None:
    assert refusal(model(dims=("n", 3, 64)), tmp_path) == (
        "the ONNX model's input is no batch of images: got float [any, 3, 64]; it must be float "
        "[batch, channels, height, width]. Fix: export it with a float32 input of rank 4, "
        "channels first."
    )


def test_other_channels_say_what_to_set(tmp_path: Path) -> None:
    assert refusal(model(), tmp_path, channels=1) == (
        "the ONNX model's channels do not fit preprocess.channels: got [any, 3, 8, 8] against 1; "
        "the input is [batch, channels, height, width]. Fix: set preprocess.channels to 3."
    )


def test_channels_last_is_recognised(tmp_path: Path) -> None:
    assert refusal(model(dims=("n", 8, 8, 3)), tmp_path) == (
        "the ONNX model's channels do not fit preprocess.channels: got [any, 8, 8, 3] against 3; "
        "the input is [batch, channels, height, width]. Fix: export it channels first."
    )


def test_another_size_says_what_to_set(tmp_path: Path) -> None:
    assert refusal(model(dims=("n", 3, 24, 24)), tmp_path) == (
        "the ONNX model's image size does not fit preprocess.size_px: got [any, 3, 24, 24] "
        "against 8; images are square here. Fix: set preprocess.size_px to 24."
    )


def test_a_size_that_is_not_square_is_refused(tmp_path: Path) -> None:
    assert refusal(model(dims=("n", 3, 8, 24)), tmp_path) == (
        "the ONNX model's image size does not fit preprocess.size_px: got [any, 3, 8, 24] against "
        "8; images are square here. Fix: export the model with a square or a free image size."
    )


def test_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    assert refusal(model(width=5), tmp_path) == (
        "the ONNX model's outputs are not the data's classes: got 5 outputs, 3 classes (cat, dog, "
        "owl); there must be one output a class. Fix: give data of the classes that the model was "
        "trained for."
    )


def test_labels_that_are_not_the_classes_are_refused(tmp_path: Path) -> None:
    assert refusal(model(), tmp_path, labels=["cat", "cow", "owl"]) == (
        "finetune.options.labels are not the data's classes: got 3 labels; not in both: cow, dog; "
        "labels names every class once, in the order of the model's outputs. Fix: write the names "
        "cat, dog, owl in that order."
    )


def test_a_model_that_does_not_run_is_refused(tmp_path: Path) -> None:
    given = model()
    given.graph.initializer[0].CopyFrom(weights("w1", 4, 2, 3, 3))
    assert refusal(given, tmp_path) == (
        "ONNX Runtime does not run net.onnx: got no answer to an image of [3, 8, 8]; it must run "
        "on the CPU, one image at a time. Fix: try it with onnxruntime.InferenceSession in a "
        "Python shell."
    )


def test_the_path_counts_from_the_project(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    assert family.path(family.Params(path="net.onnx"), tmp_path) == path
    assert family.files(family.Params(path="net.onnx"), tmp_path) == [path]


def test_the_command_line_s_model_wins_over_the_path_it_was_given_over(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    set_local(tmp_path, "model", path, instead_of="absent.onnx")
    assert family.path(family.Params(path="absent.onnx"), tmp_path) == path
    assert family.path(family.Params(), tmp_path) == path
    assert family.path(family.Params(path="net.onnx"), tmp_path) == path


def test_a_path_that_was_named_since_is_refused_not_passed_over(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    set_local(tmp_path, "model", path, instead_of="absent.onnx")
    with pytest.raises(ProjectError) as caught:
        family.path(family.Params(path="new.onnx"), tmp_path)
    assert str(caught.value) == (
        f"two places name the model: got inputs/local.yaml says {path}, finetune.options.path "
        "says new.onnx; inputs/local.yaml is what --model wrote; the params name another path "
        f"since. Fix: take the params' by deleting the line `model` from {tmp_path}/inputs/"
        f"local.yaml, or confirm the other with `fettle run --model {path}`."
    )


def test_a_missing_file_and_a_missing_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        family.path(family.Params(path="absent.onnx"), tmp_path)
    assert str(caught.value) == (
        f"finetune.options.path: no such file: got {tmp_path / 'absent.onnx'}. Fix: give the path "
        "of an ONNX file, absolute or from the project's folder."
    )
    with pytest.raises(ModelError) as caught:
        family.path(family.Params(), tmp_path)
    assert str(caught.value) == (
        "finetune.options.path: no model is named; the family onnx_file takes a trained ONNX "
        "file. Fix: set finetune.options.path to it."
    )
