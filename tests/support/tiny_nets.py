"""Small networks with every shape of channel coupling, and a context to prune them in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle import plugins
from fettle.compress.technique import CompressionContext
from fettle.models.families import small_cnn
from fettle.params_schema import Options

SIDE = 8


class Mobile(nn.Module):
    """Stem, an inverted residual block with a depthwise convolution, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.expand = nn.Conv2d(16, 48, 1)
        self.expand_norm = nn.BatchNorm2d(48)
        self.depthwise = nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(48)
        self.project = nn.Conv2d(48, 16, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(16)
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem_norm(self.stem(x)))
        y = F.relu6(self.expand_norm(self.expand(x)))
        y = F.relu6(self.depthwise_norm(self.depthwise(y)))
        x = x + self.project_norm(self.project(y))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


class Flat(nn.Module):
    """No BatchNorm, and a Linear over flattened maps: 16 inputs follow each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 24, 3, stride=2, padding=1)
        self.hidden = nn.Linear(24 * 16, 32)
        self.classifier = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x)).flatten(1)
        logits: Tensor = self.classifier(F.relu(self.hidden(x)))
        return logits


class Branches(nn.Module):
    """Two branches joined by a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(1, 32, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.join = nn.Sequential(nn.Conv2d(48, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.classifier = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.join(torch.cat([self.left(x), self.right(x)], dim=1))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def plain() -> nn.Module:
    options = small_cnn.Params(width=16, depth=2, blocks=2)
    return small_cnn.build(options, classes=3, channels=1, size_px=SIDE, project=Path())


NETS: dict[str, Callable[[], nn.Module]] = {
    "mobile": Mobile,
    "flat": Flat,
    "branches": Branches,
    "plain": plain,
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Make a network whose BatchNorms have seen something, in eval mode."""
    torch.manual_seed(seed)
    model = NETS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def images(count: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@dataclass
class Fits:
    """Stand in for training: note what was asked, change nothing."""

    models: list[nn.Module] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    settings: list[tuple[float, float, float]] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        *,
        phase: str,
        epochs: int,
        learning_rate: float,
        temperature: float,
        alpha: float,
    ) -> None:
        self.models.append(model)
        self.asked.append((phase, epochs))
        self.settings.append((learning_rate, temperature, alpha))


def student(name: str, options: Options) -> nn.Module:
    """Stand in for the stage, which builds any family."""
    family = plugins.resolve("families", name, where="")
    model: nn.Module = family.build(
        family.Params(**options), classes=3, channels=1, size_px=SIDE, project=Path()
    )
    return model


def compression_context(
    *,
    protected: Mapping[str, str] | None = None,
    multiple: int = 8,
    seed: int = 0,
    fit: Fits | None = None,
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]] | None = None,
) -> CompressionContext:
    def few() -> Iterable[tuple[Tensor, Tensor]]:
        return [(images(16, seed=at), torch.arange(16) % 3) for at in range(2)]

    return CompressionContext(
        example=images(1),
        protected=protected or {},
        channel_multiple=multiple,
        seed=seed,
        batches=batches or few,
        fit=fit or Fits(),
        build=student,
    )


def answer(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(x)
    return logits
