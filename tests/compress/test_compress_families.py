"""Every family that trains can be pruned, and its plan rebuilds the pruned network."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny_nets import Fits, answer, student
from torch import nn

from fettle import plugins
from fettle.compress import compression_plan, layer_costs
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import CompressionContext
from fettle.compress.techniques import prune
from fettle.params import Strict

SIDE = 32
OPTIONS = {
    "efficientnet_lite": {"pretrained": False},
    "resnet": {"depth": 20},
    "small_cnn": {},
    "torch_module": {"entry": "pruning_net:build"},
}
USER_CODE = """
from torch import nn

def build(classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, classes),
    )
"""


def families() -> list[str]:
    found = plugins.names("families")
    return [n for n in found if plugins.resolve("families", n, where="").TRAINS]


def build(name: str, project: Path) -> tuple[ModuleType, nn.Module]:
    (project / "pruning_net.py").write_text(USER_CODE)
    family = plugins.resolve("families", name, where="")
    options: Strict = family.Params(**OPTIONS[name])
    model = family.build(options, classes=4, channels=1, size_px=SIDE, project=project)
    return family, model.eval()


def test_all_families_are_tried() -> None:
    assert sorted(OPTIONS) == families()


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_family_is_pruned_and_rebuilt_from_its_plan(name: str, tmp_path: Path) -> None:
    images = torch.randn(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    family, model = build(name, tmp_path)
    before = layer_costs.totals(layer_costs.count_layers(model, images[:1]))
    kept_whole = {one for module in family.protected(model) for one in module.modules()}
    context = CompressionContext(
        example=images[:1],
        protected={n: "protected" for n, module in model.named_modules() if module in kept_whole},
        channel_multiple=8,
        seed=0,
        batches=lambda: [(images, torch.arange(4))],
        fit=Fits(),
        build=student,
    )
    outcome = prune.apply(model, CompressionPlan(), prune.Params(keep_fraction=0.5), context)
    after = layer_costs.totals(layer_costs.count_layers(model, images[:1]))
    assert after[0] < before[0] / 2.5
    assert after[1] < before[1] / 2
    assert set(outcome.skipped) <= {n for n, m in model.named_modules() if m in kept_whole}
    _, fresh = build(name, tmp_path)
    compression_plan.apply(fresh, CompressionPlan.from_json(outcome.plan.to_json()))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(answer(fresh, images), answer(model, images))
