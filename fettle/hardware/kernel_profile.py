"""Kernel profile: where the time of a network goes, by the runtime's own profiler.

Shares, not latencies: a profiler slows what it times (most where kernels are short), so whole
networks are timed without it. Times are ms of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

# What int8 can speed up, by the names of ONNX Runtime and of OpenVINO; the rest is memory traffic.
HEAVY_KERNELS = (
    "Conv",
    "FusedConv",
    "QLinearConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "QGemm",
    "QLinearMatMul",
    "Convolution",
    "GroupConvolution",
    "FullyConnected",
    "FullyConnectedQuantizedLegacy",
)
# int8 multiplies four times as many numbers an instruction as fp32 (AVX-512 VNNI: 64 against 16),
# which bounds what it can gain in these kernels.
INT8_GAIN_MAX = 4.0
KERNELS_KEPT = 12  # of the slowest, by name


class ProfiledKernel(Protocol):
    """Profiled kernel, a node: see fettle.hardware.runtimes.Kernel."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def int8(self) -> bool: ...
    @property
    def ms(self) -> float: ...


@dataclass(frozen=True, slots=True)
class KernelKind:
    """All kernels of one kind: how many, their time, and the share of it spent in int8."""

    kind: str
    kernels: int
    ms: float
    int8_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time goes: kinds and slowest kernels, most time first.

    `heavy_share` is the share of the time in convolutions and linear layers, `int8_share` the
    share in kernels that compute in int8.
    """

    ms: float
    heavy_share: float
    int8_share: float
    kinds: tuple[KernelKind, ...]
    slowest: tuple[tuple[str, str, float], ...]  # name, kind, ms

    @property
    def int8_bound(self) -> float:
        """Return Amdahl's bound of int8's speed-up (Amdahl 1967): only the heavy share gains."""
        return 1 / (1 - self.heavy_share + self.heavy_share / INT8_GAIN_MAX)

    def to_json(self) -> dict[str, object]:
        """Return the form that profile.json holds."""
        return {
            **asdict(self),
            "int8_bound": self.int8_bound,
            "slowest": [{"name": name, "kind": kind, "ms": ms} for name, kind, ms in self.slowest],
        }


def of_kernels(kernels: Sequence[ProfiledKernel]) -> Profile:
    """Add kernels up by kind; there is at least one, and one that took time."""
    total = sum(kernel.ms for kernel in kernels)
    groups: dict[str, list[ProfiledKernel]] = {}
    for kernel in kernels:
        groups.setdefault(kernel.kind, []).append(kernel)
    kinds = [_kind(name, group) for name, group in groups.items()]
    slowest = sorted(kernels, key=lambda kernel: (-kernel.ms, kernel.name))[:KERNELS_KEPT]
    return Profile(
        ms=total,
        heavy_share=sum(kernel.ms for kernel in kernels if kernel.kind in HEAVY_KERNELS) / total,
        int8_share=sum(kernel.ms for kernel in kernels if kernel.int8) / total,
        kinds=tuple(sorted(kinds, key=lambda kernel: (-kernel.ms, kernel.kind))),
        slowest=tuple((kernel.name, kernel.kind, kernel.ms) for kernel in slowest),
    )


def _kind(name: str, group: Sequence[ProfiledKernel]) -> KernelKind:
    ms = sum(kernel.ms for kernel in group)
    int8 = sum(kernel.ms for kernel in group if kernel.int8)
    return KernelKind(name, len(group), ms, int8 / ms if ms else 0.0)
