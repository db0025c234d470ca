"""Copies of a network at other widths: their shapes, their names, and times of real kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.hardware import onnx_width_scaling, operator_cost_fit, operator_cost_table, width_sweep
from fettle.hardware.runtimes import ort

SHAPE = (1, 8, 8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx.classifier(tmp_path / "model.onnx", width=32)


def logits_of(proto: onnx.ModelProto, path: Path) -> np.ndarray:
    onnx.save(proto, path)
    return ort.open(path, threads=1).run(np.zeros((1, *SHAPE), np.float32))


def test_operators_are_listed_with_their_shapes(model: Path) -> None:
    listed = width_sweep.list_operators(model)
    assert [one.form for one in listed][:2] == ["conv 3x3", "conv 3x3 depthwise"]
    assert [(one.inputs, one.outputs) for one in listed][:2] == [(1, 32), (32, 32)]
    assert listed[-1].kind == "gemm"


def test_a_flattened_map_cannot_be_cut_by_width(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    cut = onnx_width_scaling.scale_widths(proto, {32: 16})
    assert not onnx_width_scaling.is_runnable(cut, np.zeros((1, *SHAPE), np.float32))
    assert onnx_width_scaling.is_runnable(
        onnx_width_scaling.scale_widths(proto, {}), np.zeros((1, *SHAPE), np.float32)
    )


def test_drawn_widths_stay_within_the_network_and_its_multiple() -> None:
    drawn = width_sweep.draw_widths([24, 96, 320], 8, seed=1)
    assert len(drawn.learnt) == width_sweep.LEARNT
    assert drawn.learnt[0] == {}
    for one in (*drawn.learnt[1:], *drawn.checked):
        assert all(8 <= one[w] <= w and one[w] % 8 == 0 for w in (24, 96, 320))
    assert width_sweep.draw_widths([24, 96, 320], 8, seed=1) == drawn
    assert not set(map(str, drawn.learnt)) & set(map(str, drawn.checked))


def test_grouped_convolutions_leave_no_width_to_change() -> None:
    listed = list(clones_of_groups(groups=4))
    assert onnx_width_scaling.widths(listed) == []


def clones_of_groups(groups: int) -> list[operator_cost_table.Operator]:
    return [
        operator_cost_table.Operator(name="a", kind="conv", inputs=1, outputs=32),
        operator_cost_table.Operator(name="b", kind="conv", inputs=32, outputs=64, groups=groups),
        operator_cost_table.Operator(name="c", kind="gemm", inputs=64, outputs=3),
    ]


def test_names_lead_from_a_kernel_to_its_operator(model: Path, tmp_path: Path) -> None:
    made = onnx_width_scaling.scale_widths(onnx.load(model), {})
    before = logits_of(made, tmp_path / "before.onnx")
    listed = onnx_width_scaling.name_after_operators(made)
    assert np.array_equal(logits_of(made, tmp_path / "after.onnx"), before)
    profiler = ort.profile(tmp_path / "after.onnx", threads=1)
    for _ in range(3):
        profiler.run(np.zeros((1, *SHAPE), np.float32))
    heavy = [k for k in profiler.kernels() if k.kind in ("Conv", "FusedConv", "Gemm", "FusedGemm")]
    found = [onnx_width_scaling.operator_of(kernel.name) for kernel in heavy]
    assert sorted(at for at in found if at is not None) == [
        index for index, one in enumerate(listed) if one.kind in ("conv", "gemm")
    ]


def test_a_network_that_cannot_be_cut_is_timed_as_it_is(model: Path) -> None:
    taken = width_sweep.sweep_widths(
        model, shape=SHAPE, multiple=8, seed=1, rounds=5,
        open_=lambda path: ort.open(path, threads=1),
        profile=lambda path: ort.profile(path, threads=1),
    )  # fmt: skip
    costs = operator_cost_fit.fit(taken.samples, taken.nets, taken.checks)
    assert (len(taken.nets), len(taken.checks), costs.error) == (1, 0, None)
    predicted = operator_cost_table.predict(costs, taken.nets[0].operators)
    assert predicted.value == pytest.approx(taken.nets[0].ms, rel=0.05)
