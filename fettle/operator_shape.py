"""Describe one operator of a network by its shape: what a latency is predicted from.

Lists of these pass between the rooms that look at a model (compress: a torch module; bench: an
ONNX file) and the table of measured times. Batch 1 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["conv", "gemm", "add", "pool"]  # the rest is glue: charged once a net
HEAVY = ("Conv", "Gemm", "MatMul")  # ONNX's operators that multiply by weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """`inputs` and `outputs` count channels; `height` and `width` are the output's, in pixels.

    `groups` equals `inputs` for a depthwise convolution. `name` is the layer's, or the node's.
    """

    name: str
    kind: Kind
    inputs: int
    outputs: int
    height: int = 1
    width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    groups: int = 1

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.kind == "conv" and self.groups == self.inputs > 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; additions and pools count none."""
        if self.kind not in ("conv", "gemm"):
            return 0
        area = self.height * self.width * self.kernel[0] * self.kernel[1]
        return self.inputs // self.groups * self.outputs * area

    @property
    def weights(self) -> int:
        """Count the weights it reads, without its bias."""
        if self.kind not in ("conv", "gemm"):
            return 0
        return self.inputs // self.groups * self.outputs * self.kernel[0] * self.kernel[1]

    @property
    def form(self) -> str:
        """Name what it is apart from its size: "conv 3x3 /2 depthwise"."""
        size = f" {self.kernel[0]}x{self.kernel[1]}" if self.kind in ("conv", "pool") else ""
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"{self.kind}{size}{stride}{' depthwise' if self.depthwise else ''}"

    @property
    def place(self) -> str:
        """Name what it is apart from its channels: "conv 3x3 /2 depthwise at 16x16"."""
        return f"{self.form} at {self.height}x{self.width}"
