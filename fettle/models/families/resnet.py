"""ResNet 20 (small, for images of 32 px) and ResNet 18, from scratch.

He et al., arXiv:1512.03385: 20 is the CIFAR network of section 4.2 (three stages of 16, 32 and 64
channels), 18 the ImageNet network of table 1 (four stages of 64 to 512). Where the side or the
width changes, the shortcut is a 1x1 convolution (option B), which pruning can follow.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fettle.models.input_record import InputRecord
from fettle.params import Strict

if TYPE_CHECKING:
    from torch import nn

TRAINS = True

# depth: (channels of the stages, blocks a stage)
_SHAPES = {18: ((64, 128, 256, 512), 2), 20: ((16, 32, 64), 3)}
# From this side on depth 18 begins with a 7x7 of stride 2 and a pooling, as for ImageNet; below it
# with a 3x3 of stride 1, which keeps resolution.
_LARGE_STEM_FROM_PX = 128


class Params(Strict):
    """Which network."""

    depth: Literal[18, 20] = 20


def input_record(options: Params, project: Path) -> InputRecord:
    """State what the network was designed for; it has no weights that expect anything."""
    del project  # this family reads nothing of the user's
    return InputRecord(least_px=8, native=False, cost=f"resnet/{options.depth}")


def licence(options: Params, project: Path) -> str:
    """State the licence: the network is fettle's own, and its weights are learnt from the data."""
    del options, project
    return "Apache-2.0"


def build(
    options: Params, *, classes: int, channels: int, size_px: int, project: Path
) -> nn.Module:
    """Make the network: float32 [N, C, S, S] → logits [N, classes]."""
    from torch import nn

    from fettle.models.torch_blocks import conv_norm, initialise

    del project  # this family reads nothing of the user's
    widths, count = _SHAPES[options.depth]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if options.depth == 18 and size_px >= _LARGE_STEM_FROM_PX:
        stem = conv_norm(channels, widths[0], kernel=7, stride=2, activation=nn.ReLU())
        layers["stem"] = nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1))
    else:
        layers["stem"] = conv_norm(channels, widths[0], kernel=3, activation=nn.ReLU())
    inside = widths[0]
    for index, width in enumerate(widths, start=1):
        blocks = []
        for block in range(count):
            blocks.append(_block(inside, width, stride=2 if index > 1 and block == 0 else 1))
            inside = width
        layers[f"stage{index}"] = nn.Sequential(*blocks)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(inside, classes)
    model = nn.Sequential(layers)
    initialise(model)
    return model


def groups(model: nn.Module) -> list[list[nn.Module]]:
    """Give the classifier, then each stage from the last to the first, the stem with the first."""
    part = dict(model.named_children())
    stages = sorted((name for name in part if name.startswith("stage")), reverse=True)
    cut = [[part["classifier"]], *([part[name]] for name in stages)]
    cut[-1].append(part["stem"])
    return cut


def protected(model: nn.Module) -> list[nn.Module]:
    """Name the classifier: its outputs are the classes."""
    return [dict(model.named_children())["classifier"]]


def _block(channels_in: int, channels_out: int, *, stride: int) -> nn.Module:
    """Make a basic block: two 3x3 convolutions beside a shortcut."""
    from torch import nn

    from fettle.models.torch_blocks import Residual, conv_norm

    body = nn.Sequential(
        conv_norm(channels_in, channels_out, kernel=3, stride=stride, activation=nn.ReLU()),
        conv_norm(channels_out, channels_out, kernel=3),
    )
    same = stride == 1 and channels_in == channels_out
    shortcut = None if same else conv_norm(channels_in, channels_out, kernel=1, stride=stride)
    return Residual(body, shortcut=shortcut, after=nn.ReLU())
