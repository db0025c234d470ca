"""Torch building blocks that the families share; imported inside their `build`, never earlier.

Plain nn.Conv2d, BatchNorm and ReLU only: Torch-Pruning counts and prunes exact types, and every
runtime fuses them.
"""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):
    """Compute `after(shortcut(x) + body(x))`."""

    def __init__(
        self,
        body: nn.Module,
        *,
        shortcut: nn.Module | None = None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut if shortcut is not None else nn.Identity()
        self.after = after if after is not None else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, H, W] to [N, C', H', W']."""
        total: torch.Tensor = self.after(self.shortcut(x) + self.body(x))
        return total


def conv_norm(
    channels_in: int,
    channels_out: int,
    *,
    kernel: int,
    stride: int = 1,
    depthwise: bool = False,
    activation: nn.Module | None = None,
    norm_epsilon: float = 1e-5,
    padding: tuple[int, int] | None = None,
) -> nn.Sequential:
    """Chain convolution (no bias), BatchNorm and, if given, an activation.

    `padding` is (left and top, right and bottom) in pixels, kernel // 2 all round by default.
    Uneven padding is a layer of its own, so that the convolution stays a plain nn.Conv2d; lowering
    puts it back into the convolution.
    """
    before, after = padding if padding is not None else (kernel // 2, kernel // 2)
    even = before == after
    conv = nn.Conv2d(
        channels_in,
        channels_out,
        kernel,
        stride=stride,
        padding=before if even else 0,
        groups=channels_in if depthwise else 1,
        bias=False,
    )
    layers: list[nn.Module] = [] if even else [nn.ZeroPad2d((before, after, before, after))]
    layers += [conv, nn.BatchNorm2d(channels_out, eps=norm_epsilon)]
    return nn.Sequential(*layers, *([activation] if activation is not None else []))


def same_padding(side_px: int, *, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding (before, after) for an input of `side_px`.

    The output has ceil(side / stride) pixels; an odd pixel of padding goes after. So it is uneven
    for a stride of 2 on an even side.
    """
    total = max((-(-side_px // stride) - 1) * stride + kernel - side_px, 0)
    return total // 2, total - total // 2


def initialise(model: nn.Module) -> None:
    """Draw He-normal weights (fan out, arXiv:1502.01852) for training from scratch, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
