"""Put a price on a model as it stands: the objective's figure, and how far limits are exceeded.

A latency comes from the latency table of this machine where there is one; without it, from

    0.0415 us per thousand MACs + 5.4 us per layer        (one thread, ONNX Runtime fp32)

fitted to EfficientNet-Lite0 at 32 px on an EPYC: 1.62 ms at 30.8 M MACs and 0.50 ms at 3.8 M, 63
layers each. It ranks models of one machine; it is no latency, and is never shown as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fettle.compress import _layers
from fettle.sections import Also

MS_PER_MAC = 0.0415e-6
MS_PER_LAYER = 0.0054
UNITS = {"latency_p50_ms": "ms, predicted", "energy_j": "ms, predicted", "macs": "MACs"}


@dataclass(frozen=True, slots=True)
class Price:
    """How models are priced: `bytes_per_weight` is of the target the objective is for."""

    minimise: str
    also: Also
    bytes_per_weight: int
    example: torch.Tensor

    @property
    def unit(self) -> str:
        """The unit of the figure."""
        return UNITS.get(self.minimise, "bytes, of weights")

    @property
    def source(self) -> str:
        """Where a latency comes from."""
        return "a fit of MACs and layers, for want of a latency table"

    def of(self, model: nn.Module, layers: Sequence[_layers.Layer] | None) -> tuple[float, float]:
        """Return the objective's figure (> 0), and the worst ratio of a figure to its limit."""
        layers = _layers.survey(model, self.example) if layers is None else layers
        params, macs = _layers.totals(layers)
        latency_ms = MS_PER_MAC * macs + MS_PER_LAYER * len(layers)
        size_bytes = float(self.bytes_per_weight * params)
        figures = {
            "latency_p50_ms": latency_ms,
            "energy_j": latency_ms,
            "macs": float(macs),
            "size_bytes": size_bytes,
        }
        limited = (
            (size_bytes, self.also.size_bytes_max),
            (latency_ms, self.also.latency_p50_ms_max),
            (params, self.also.params_max),
            (macs, self.also.macs_max),
        )
        return figures[self.minimise], max(
            (figure / limit for figure, limit in limited if limit), default=0.0
        )
