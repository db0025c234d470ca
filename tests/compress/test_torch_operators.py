"""The operators of a torch module are those of the file it is lowered to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import tiny_nets
import torch

from fettle.compress import torch_operators
from fettle.hardware import width_sweep
from fettle.models import export_onnx


def test_a_module_and_its_file_list_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny_nets.Mobile()
    listed = torch_operators.operators(model, torch.zeros(1, 1, tiny_nets.SIDE, tiny_nets.SIDE))
    path = tmp_path / "model.onnx"
    export_onnx.export(model, channels=1, size_px=tiny_nets.SIDE, out=path)
    unnamed = [replace(one, name="") for one in listed]
    assert unnamed == [replace(one, name="") for one in width_sweep.list_operators(path)]


def test_an_operator_bears_its_layers_name() -> None:
    example = torch.zeros(1, 1, tiny_nets.SIDE, tiny_nets.SIDE)
    listed = torch_operators.operators(tiny_nets.Mobile(), example)
    assert [(one.name, one.form) for one in listed] == [
        ("stem", "conv 3x3"),
        ("expand", "conv 1x1"),
        ("depthwise", "conv 3x3 depthwise"),
        ("project", "conv 1x1"),
        ("", "add"),
        ("", "pool 8x8 /8"),
        ("classifier", "gemm"),
    ]


def test_looking_leaves_no_hook_and_the_mode_as_it_was() -> None:
    model = tiny_nets.Mobile().train()
    torch_operators.operators(model, torch.zeros(1, 1, tiny_nets.SIDE, tiny_nets.SIDE))
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
