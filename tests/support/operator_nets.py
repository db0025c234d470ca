"""Networks that between them hold every operator that a converter of ONNX is to know."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.models import export_onnx

SIDE = 32


class Patchwork(nn.Module):
    """Groups, dilation, odd padding, squeeze and excite, slices, pools, a pad, a resize."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.dilated = nn.Conv2d(8, 16, 5, padding=2, dilation=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.slope = nn.PReLU(16)
        self.classifier = nn.Linear(16 * 4 * 4 + 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        x = torch.cat([x, F.hardswish(self.grouped(x))], 1)[:, ::2].contiguous() + x
        x = self.slope(self.dilated(F.max_pool2d(F.leaky_relu(x, 0.1), 3, 2, 1)))
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        x = F.avg_pool2d(x * torch.sigmoid(gate), 2)
        x = F.pad(F.interpolate(x, size=(8, 8), mode="nearest"), (1, 1, 1, 1))
        x = F.adaptive_avg_pool2d(F.max_pool2d(F.gelu(x), 2), (5, 5))
        x = torch.clamp(x[:, :, :4, :4], -1, 3)
        peaks = torch.tanh(F.elu(x).amax((2, 3)))
        logits: Tensor = self.classifier(torch.cat([x.reshape(x.shape[0], -1), peaks], 1))
        return logits


class Shuffle(nn.Module):
    """Channels split, shuffled and joined, a transposed convolution, a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shuffled = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(8, 8, 1)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 2, 2), nn.LayerNorm(8)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat([left, self.shuffled(right)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        logits: Tensor = self.classifier(self.norm(self.up(x).mean((2, 3))))
        return logits


class Attention(nn.Module):
    """Patches and one transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.patches(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.classifier(x.mean(1))
        return logits


class LogAnswer(nn.Module):
    """A flattened map, and an answer by log_softmax, which no Ethos-U has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.classifier = nn.Conv2d(3, 4, 3), nn.Linear(4 * 15 * 15, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.stem(x)), 2).flatten(1)
        return F.log_softmax(self.classifier(x), 1)


class Fourier(nn.Module):
    """A sine, which TFLite's table here has not."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.sin(x).mean((2, 3)))
        return logits


NETS = {net.__name__: net for net in (Patchwork, Shuffle, Attention, LogAnswer, Fourier)}


def write(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write one as ONNX, 3 channels of 32 px, 10 classes; BatchNorms have seen something."""
    torch.manual_seed(seed)
    net = NETS[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 2)
    path = folder / f"{name}.onnx"
    export_onnx.export(net, channels=3, size_px=SIDE, out=path)
    return path
