"""Modules that hold one parameter under two names: counted once, and saved as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fettle.compress import layer_costs
from fettle.models import export_onnx
from fettle.models.families import torch_module as family
from fettle.training import training_checkpoint

Write = Callable[[str, str], Path]
PARAMETERS = 2_650  # 160 of the stem, 2,320 of both convolutions together, 170 of the head
NET = """
from torch import nn

def build(classes, channels):
    a, b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    b.weight, b.bias = a.weight, a.bias
    stem = nn.Sequential(nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU())
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)
    return nn.Sequential(stem, a, nn.ReLU(), b, nn.ReLU(), *end)
"""


@pytest.fixture
def tied(project: Path, write: Write) -> nn.Module:
    write("net_t.py", NET)
    torch.manual_seed(0)
    options = family.Params(entry="net_t:build")
    model: nn.Module = family.build(options, classes=10, channels=1, size_px=8, project=project)
    return model.eval()


def images() -> torch.Tensor:
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_shared_parameter_is_counted_once(tied: nn.Module) -> None:
    layers = layer_costs.count_layers(tied, images()[:1])
    assert layer_costs.totals(layers)[0] == PARAMETERS
    assert [layer.params for layer in layers] == [160, 2_320, 0, 170]
    assert sum(p.numel() for p in tied.parameters()) == PARAMETERS


def test_both_uses_of_a_shared_weight_are_multiplied(tied: nn.Module) -> None:
    layers = layer_costs.count_layers(tied, images()[:1])
    assert [layer.macs for layer in layers] == [144 * 16, 2_304 * 16, 2_304 * 16, 160]


def test_it_is_saved_and_loaded_with_the_same_answers(
    tied: nn.Module, project: Path, write: Write
) -> None:
    save_file(training_checkpoint.detached(tied.state_dict()), project / "tied.safetensors")
    options = family.Params(entry="net_t:build", weights="tied.safetensors")
    again = family.build(options, classes=10, channels=1, size_px=8, project=project).eval()
    assert again[1].weight is again[3].weight
    with torch.no_grad():
        torch.testing.assert_close(again(images()), tied(images()), rtol=0, atol=0)


def test_a_checkpoint_keeps_both_names(tied: nn.Module, tmp_path: Path) -> None:
    training_checkpoint.save(tmp_path / "kept", {"model": tied.state_dict()}, {"epoch": 3})
    found = training_checkpoint.load(tmp_path / "kept")
    assert found is not None
    parts, state = found
    assert state == {"epoch": 3}
    assert list(parts["model"]) == sorted(tied.state_dict())
    torch.testing.assert_close(parts["model"]["1.weight"], parts["model"]["3.weight"])


def test_what_is_saved_is_a_copy_in_memory_of_its_own(tied: nn.Module, tmp_path: Path) -> None:
    kept = training_checkpoint.detached(tied.state_dict())
    assert kept["1.weight"].data_ptr() != kept["3.weight"].data_ptr()
    before = kept["1.weight"].clone()
    nn.init.zeros_(tied.get_parameter("1.weight"))
    assert torch.equal(kept["1.weight"], before)
    save_file(kept, tmp_path / "kept.safetensors")
    assert len(load_file(tmp_path / "kept.safetensors")) == 8


def test_the_exported_graph_answers_the_same(tied: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx.export(tied, channels=1, size_px=8, out=path)
    from fettle.hardware.runtimes import ort

    found = torch.from_numpy(ort.open(path, threads=1).run(images().numpy()))
    with torch.no_grad():
        torch.testing.assert_close(found, tied(images()), rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(onnx.load(path))
