"""An ONNX file made elsewhere is adopted: names, batch, sizes, opset, control flow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from foreign_onnx import Dim, adopt, model, saved
from onnx import TensorProto, helper, numpy_helper

from fettle.models import onnx_rewriting


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
