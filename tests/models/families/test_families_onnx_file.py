from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.errors import ModelError, ProjectError
from fettle.local_settings import set_local
from fettle.models import onnx_rewriting
from fettle.models.families import onnx_file as family

Dim = int | str | None
CLASSES = ["cat", "dog", "owl"]


def weights(name: str, *shape: int) -> Any:
    values = np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def model(
    *,
    dims: Sequence[Dim] = ("n", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    width: int = 3,
    flat: bool = True,
    opset: int = 17,
    nodes: Sequence[Any] = (),
    names: tuple[str, str] = ("pixels", "scores"),
) -> Any:
    """Make pixels → Conv → `nodes` from "c" to "d" (else the same) → pool → 1x1 Conv → scores."""
    given, answer = names
    body = list(nodes) or [helper.make_node("Relu", ["c"], ["d"])]
    tail = [helper.make_node("Conv", ["p", "w2"], ["q"])]
    last = "Flatten" if flat else "Identity"
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [given, "w1"], ["c"], doc_string="from /elsewhere/net.py"),
            *body,
            helper.make_node("GlobalAveragePool", ["d"], ["p"]),
            *tail,
            helper.make_node(last, ["q"], [answer]),
        ],
        "stranger",
        [helper.make_tensor_value_info(given, kind, dims)],
        [helper.make_tensor_value_info(answer, TensorProto.FLOAT, [None] * (2 if flat else 4))],
        [weights("w1", 4, 3, 3, 3), weights("w2", width, 4, 1, 1)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    proto.metadata_props.add(key="made", value="yesterday")
    return proto


def saved(proto: Any, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(proto, path)
    return path


def adopt(path: Path, **changed: Any) -> family.AdoptedModel:
    given: dict[str, Any] = {"channels": 3, "size_px": 8, "classes": CLASSES, "labels": None}
    return family.adopt(path, **(given | changed))


def refusal(proto: Any, folder: Path, **changed: Any) -> str:
    with pytest.raises(ModelError) as caught:
        adopt(saved(proto, folder), **changed)
    return str(caught.value)


def shape(value: Any) -> list[Dim]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, 3, 8, 8)).astype(np.float32)


def answer(proto: Any, count: int = 5) -> np.ndarray:
    found = onnx_rewriting.run_model(proto, images(count))
    assert found is not None
    return found.reshape(count, -1)


def test_the_model_gets_the_house_names_and_answers_the_same(tmp_path: Path) -> None:
    given = model()
    found = adopt(saved(given, tmp_path)).proto
    onnx.checker.check_model(found, full_check=True)
    assert (found.graph.input[0].name, found.graph.output[0].name) == ("input", "logits")
    assert (shape(found.graph.input[0]), shape(found.graph.output[0])) == (
        ["batch", 3, 8, 8],
        ["batch", 3],
    )
    np.testing.assert_array_equal(answer(found), answer(given))


def test_adopting_twice_gives_the_same_bytes_without_a_trace_of_the_maker(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    first, second = (adopt(path).proto.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert b"/elsewhere" not in first
    assert b"yesterday" not in first


def test_free_sides_are_fixed_to_the_size_in_params(tmp_path: Path) -> None:
    found = adopt(saved(model(dims=(None, 3, "h", "w")), tmp_path)).proto
    assert shape(found.graph.input[0]) == ["batch", 3, 8, 8]


def test_a_batch_noted_as_one_is_set_free_where_the_graph_allows_it(tmp_path: Path) -> None:
    found = adopt(saved(model(dims=(1, 3, 8, 8)), tmp_path))
    assert shape(found.proto.graph.input[0]) == ["batch", 3, 8, 8]
    assert found.notes == ()


def test_a_batch_that_the_graph_fixes_stays_one_and_is_noted(tmp_path: Path) -> None:
    target = numpy_helper.from_array(np.array([1, 4, 36], dtype=np.int64), "target")
    back = numpy_helper.from_array(np.array([1, 4, 6, 6], dtype=np.int64), "back")
    given = model(
        dims=(1, 3, 8, 8),
        nodes=[
            helper.make_node("Reshape", ["c", "target"], ["flat"]),
            helper.make_node("Reshape", ["flat", "back"], ["d"]),
        ],
    )
    given.graph.initializer.extend([target, back])
    found = adopt(saved(given, tmp_path))
    assert shape(found.proto.graph.input[0]) == [1, 3, 8, 8]
    assert found.notes == ("the graph takes one image at a time: its batch is fixed to 1",)
    np.testing.assert_array_equal(answer(found.proto, 1), answer(given, 1))


def test_an_answer_with_sides_of_one_is_flattened(tmp_path: Path) -> None:
    given = model(flat=False)
    found = adopt(saved(given, tmp_path)).proto
    assert shape(found.graph.output[0]) == ["batch", 3]
    np.testing.assert_array_equal(answer(found), answer(given))


def test_labels_put_the_outputs_into_sorted_class_order(tmp_path: Path) -> None:
    given = model()
    found = adopt(saved(given, tmp_path), labels=["owl", "cat", "dog"])
    np.testing.assert_array_equal(answer(found.proto), answer(given)[:, [1, 2, 0]])
    assert found.notes == ("the outputs are put into sorted class order",)


def test_an_old_opset_is_raised_so_that_weights_can_be_scaled_per_channel(tmp_path: Path) -> None:
    found = adopt(saved(model(opset=11), tmp_path)).proto
    assert [(one.domain, one.version) for one in found.opset_import] == [("", 13)]


def test_names_that_clash_give_way(tmp_path: Path) -> None:
    inner = [
        helper.make_node("Relu", ["c"], ["logits"]),
        helper.make_node("Neg", ["logits"], ["input"]),
        helper.make_node("Neg", ["input"], ["d"]),
    ]
    given = model(nodes=inner)
    found = adopt(saved(given, tmp_path)).proto
    np.testing.assert_array_equal(answer(found), answer(given))


def test_names_swapped_against_the_house_are_put_right(tmp_path: Path) -> None:
    given = model(names=("logits", "input"))
    found = adopt(saved(given, tmp_path)).proto
    assert (found.graph.input[0].name, found.graph.output[0].name) == ("input", "logits")
    np.testing.assert_array_equal(answer(found), answer(given))


def branch(condition: Sequence[Any]) -> list[Any]:
    """Make an If between the relu and the negative of "c"."""
    arms = [
        helper.make_graph(
            [helper.make_node(kind, ["c"], [f"{kind}_out"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, [None] * 4)],
        )
        for kind in ("Relu", "Neg")
    ]
    chosen = helper.make_node("If", ["yes"], ["d"], then_branch=arms[0], else_branch=arms[1])
    return [*condition, chosen]


def test_a_branch_on_the_image_size_is_folded_away(tmp_path: Path) -> None:
    side = numpy_helper.from_array(np.array(2, dtype=np.int64), "axis")
    limit = numpy_helper.from_array(np.array(5, dtype=np.int64), "limit")
    given = model(
        dims=("n", 3, "h", "w"),
        nodes=branch(
            [
                helper.make_node("Shape", ["pixels"], ["sides"]),
                helper.make_node("Gather", ["sides", "axis"], ["height"]),
                helper.make_node("Greater", ["height", "limit"], ["yes"]),
            ]
        ),
    )
    given.graph.initializer.extend([side, limit])
    found = adopt(saved(given, tmp_path))
    assert onnx_rewriting.control_flow(found.proto) == []
    assert found.notes == ("control flow (If) depended on the image size: folded away",)
    assert shape(found.proto.graph.input[0]) == ["batch", 3, 8, 8]
    np.testing.assert_allclose(answer(found.proto), answer(given), rtol=1e-6)


def test_a_branch_on_the_pixels_stays_and_is_noted(tmp_path: Path) -> None:
    zero = numpy_helper.from_array(np.array(0, dtype=np.float32), "zero")
    given = model(
        nodes=branch(
            [
                helper.make_node("ReduceMean", ["c"], ["mean"], keepdims=0),
                helper.make_node("Greater", ["mean", "zero"], ["yes"]),
            ]
        )
    )
    given.graph.initializer.extend([zero])
    found = adopt(saved(given, tmp_path))
    assert onnx_rewriting.control_flow(found.proto) == ["If"]
    assert "control flow stays in the graph: If" in found.notes


def test_weights_are_counted_in_initialisers_and_constants(tmp_path: Path) -> None:
    given = model()
    kept = given.graph.initializer.pop(1)
    given.graph.node.insert(0, helper.make_node("Constant", [], ["w2"], value=kept))
    assert adopt(saved(given, tmp_path)).parameters == 4 * 3 * 9 + 3 * 4


# refusals


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


# where the file lies


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
