"""Hold every file of fettle/models/families to what the stages rely on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from fettle import plugins
from fettle.models import export_onnx
from fettle.models.families import onnx_file

CLASSES, CHANNELS, SIZE_PX = 7, 1, 32
NAMES = plugins.names("families")
# What a family cannot do without, beside its defaults.
NEEDED: dict[str, dict[str, Any]] = {"torch_module": {"entry": "contract_net:build"}}
USER_CODE = """
from torch import nn

def build(classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes),
    )
"""


def load(name: str) -> ModuleType:
    return plugins.resolve("families", name, where="finetune.family")


TRAINING = [name for name in NAMES if load(name).TRAINS]


@dataclass(frozen=True)
class Made:
    family: ModuleType
    model: nn.Module
    project: Path


def build(name: str, project: Path) -> nn.Module:
    (project / "contract_net.py").write_text(USER_CODE)
    torch.manual_seed(0)
    family = load(name)
    options = family.Params(**NEEDED.get(name, {}))
    model: nn.Module = family.build(
        options, classes=CLASSES, channels=CHANNELS, size_px=SIZE_PX, project=project
    )
    return model


@pytest.fixture(scope="module", params=TRAINING)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    project = tmp_path_factory.mktemp("project")
    return Made(load(request.param), build(request.param, project), project)


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, CHANNELS, SIZE_PX, SIZE_PX, generator=generator)


def test_the_families_are_these() -> None:
    assert NAMES == ["efficientnet_lite", "onnx_file", "resnet", "small_cnn", "torch_module"]
    assert [*{*NAMES} - {*TRAINING}] == ["onnx_file"]


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_entry_is_one_line_that_says_something(name: str) -> None:
    assert 30 <= len(plugins.summary("families", name)) <= 100


def test_importing_every_family_imports_no_toolkit() -> None:
    code = (
        "import sys\nfrom fettle import plugins\n"
        f"for name in {NAMES}: plugins.resolve('families', name, where='x')\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'sklearn', 'safetensors'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_logits_have_one_row_an_image_and_one_column_a_class(
    made: Made, images: torch.Tensor
) -> None:
    with torch.no_grad():
        logits = made.model.eval()(images)
    assert logits.shape == (4, CLASSES)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_every_parameter_gets_a_gradient(made: Made, images: torch.Tensor) -> None:
    loss = F.cross_entropy(made.model.train()(images), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    without = [name for name, p in made.model.named_parameters() if p.grad is None]
    made.model.zero_grad(set_to_none=True)
    assert without == []


def test_groups_cover_every_parameter_exactly_once(made: Made) -> None:
    groups = made.family.groups(made.model)
    grouped = [id(p) for group in groups for module in group for p in module.parameters()]
    assert sorted(grouped) == sorted(id(p) for p in made.model.parameters())
    assert len(groups) >= 2, "gradual unfreezing needs at least a head and a body"


def test_the_first_group_holds_the_head(made: Made) -> None:
    inside = {id(m) for module in made.family.groups(made.model)[0] for m in module.modules()}
    assert all(id(layer) in inside for layer in made.family.protected(made.model))


def test_protected_layers_are_part_of_the_model_and_give_the_classes(made: Made) -> None:
    layers = made.family.protected(made.model)
    inside = {id(module) for module in made.model.modules()}
    assert layers
    assert all(id(layer) in inside for layer in layers)
    assert layers[-1].weight.shape[0] == CLASSES


def test_the_model_lowers_to_onnx_and_answers_the_same(
    made: Made, images: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    export_onnx.export(made.model, channels=CHANNELS, size_px=SIZE_PX, out=path)
    with torch.no_grad():
        reference = made.model.eval()(images).numpy()
    found = export_onnx.parity(path, images.numpy(), reference)
    export_onnx.check_parity(found, what="model.onnx")
    assert found.relative < 1e-4
    assert found.top1 == 1.0


def test_the_state_dict_comes_back_from_safetensors(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in made.model.state_dict().items()}, path)
    name = made.family.__name__.rpartition(".")[2]
    fresh = build(name, made.project)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    fresh.load_state_dict(load_file(path))
    own = made.model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in fresh.state_dict().items())


def test_two_builds_with_one_seed_are_equal(made: Made) -> None:
    name = made.family.__name__.rpartition(".")[2]
    first, second = (build(name, made.project).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_family_without_training_hands_on_a_lowered_model(
    tmp_path: Path, images: torch.Tensor
) -> None:
    model = build("small_cnn", tmp_path)
    given = tmp_path / "given.onnx"
    export_onnx.export(model, channels=CHANNELS, size_px=SIZE_PX, out=given)
    options = onnx_file.Params(path="given.onnx")
    adopted = onnx_file.adopt(
        onnx_file.path(options, tmp_path),
        channels=CHANNELS,
        size_px=SIZE_PX,
        classes=[f"class {k}" for k in range(CLASSES)],
        labels=None,
    )
    taken = tmp_path / "taken.onnx"
    taken.write_bytes(adopted.proto.SerializeToString())
    batch = images.numpy()
    assert np.array_equal(export_onnx.run_onnx(taken, batch), export_onnx.run_onnx(given, batch))
