"""A plain small CNN from scratch, for data sets and chips where ImageNet features buy nothing.

Blocks of `depth` 3x3 convolutions (BatchNorm, ReLU), the first of each block halving the side and
doubling the channels; global average pooling; one Linear.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fettle.models.input_record import InputRecord
from fettle.params import Strict

if TYPE_CHECKING:
    from torch import nn

TRAINS = True


class Params(Strict):
    """`width` channels in the first block, doubled in each next one; `depth` layers a block.

    `stem_stride` is the stride of the first convolution: on large images the layers at full
    resolution are most of the time (ADR 0031).
    """

    width: Annotated[int, Field(ge=4, le=512)] = 32
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    blocks: Annotated[int, Field(ge=1, le=5)] = 3
    stem_stride: Literal[1, 2, 4] = 1


def input_record(options: Params, project: Path) -> InputRecord:
    """State the least side that its blocks and stem leave a pixel of."""
    del project  # this family reads nothing of the user's
    least = max(8, 2**options.blocks * options.stem_stride)
    return InputRecord(least_px=least, native=False, cost="small_cnn")


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

    del size_px, project  # any side fits, thanks to the global pooling; nothing of the user's
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inside = channels
    for block in range(options.blocks):
        outside = options.width * 2**block
        chain = []
        for index in range(options.depth):
            stride = 1 if index > 0 else 2 if block > 0 else options.stem_stride
            chain.append(conv_norm(inside, outside, kernel=3, stride=stride, activation=nn.ReLU()))
            inside = outside
        layers[f"block{block + 1}"] = nn.Sequential(*chain)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(inside, classes)
    model = nn.Sequential(layers)
    initialise(model)
    return model


def groups(model: nn.Module) -> list[list[nn.Module]]:
    """Give the classifier, then each block from the last to the first."""
    part = dict(model.named_children())
    blocks = sorted((name for name in part if name.startswith("block")), reverse=True)
    return [[part["classifier"]], *([part[name]] for name in blocks)]


def protected(model: nn.Module) -> list[nn.Module]:
    """Name the classifier: its outputs are the classes."""
    return [dict(model.named_children())["classifier"]]
