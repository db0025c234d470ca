"""Cost model: the objective's figure of a model as it stands, and how far limits are exceeded.

A latency is predicted from this machine's latency table: the least over the targets that may ship.
Where nothing could be measured (no runtime with a profiler), models are ranked by

    0.0415 us per thousand MACs + 5.4 us per layer        (one thread, ONNX Runtime fp32)

fitted to EfficientNet-Lite0 at 32 px on an EPYC: 1.62 ms at 30.8 M MACs and 0.50 ms at 3.8 M, 63
layers each. That is no latency, and never shown as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fettle.compress import layer_costs, torch_operators
from fettle.hardware import operator_cost_table
from fettle.hardware.operator_cost_table import Costs
from fettle.params_schema import Constraints

MS_PER_MAC = 0.0415e-6
MS_PER_LAYER = 0.0054


def latency_from_macs_ms(layers: Sequence[layer_costs.LayerCost]) -> float:
    """Latency proxy from MACs and layers, which ranks models where nothing was measured."""
    return MS_PER_MAC * layer_costs.totals(layers)[1] + MS_PER_LAYER * len(layers)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Cost model of an objective: `bytes_per_weight` is of the target the objective is for, `costs`
    are the table's, by target.
    """

    minimise: str
    constraints: Constraints
    bytes_per_weight: float
    example: torch.Tensor
    costs: Mapping[str, Costs]

    @property
    def unit(self) -> str:
        """The unit of the figure."""
        match self.minimise:
            case "macs":
                return "MACs"
            case "size_bytes":
                return "bytes of weights"
            case _:
                return "ms predicted" if self.costs else "(MACs and layers)"

    @property
    def source(self) -> str:
        """Where the figure comes from."""
        if self.minimise in ("macs", "size_bytes"):
            return "counted"
        if not self.costs:
            return "MACs and layers, for want of a latency table"
        return f"the latency table of {', '.join(sorted(self.costs))}"

    def cost(
        self, model: nn.Module, layers: Sequence[layer_costs.LayerCost] | None
    ) -> tuple[float, float]:
        """Cost by the objective (> 0), and the worst ratio of a figure to its limit."""
        layers = layer_costs.count_layers(model, self.example) if layers is None else layers
        params, macs = layer_costs.totals(layers)
        latency_ms = self._latency_ms(model, layers)
        size_bytes = self.bytes_per_weight * params
        figures = {
            "latency_p50_ms": latency_ms,
            "energy_j": latency_ms,
            "macs": float(macs),
            "size_bytes": size_bytes,
        }
        limited = (
            (size_bytes, self.constraints.size_bytes_max),
            (latency_ms if self.costs else 0.0, self.constraints.latency_p50_ms_max),
            (params, self.constraints.params_max),
            (macs, self.constraints.macs_max),
        )
        return figures[self.minimise], max(
            (figure / limit for figure, limit in limited if limit), default=0.0
        )

    def _latency_ms(self, model: nn.Module, layers: Sequence[layer_costs.LayerCost]) -> float:
        if not self.costs:
            return latency_from_macs_ms(layers)
        operators = torch_operators.operators(model, self.example)
        return min(
            operator_cost_table.predict(cost, operators).value for cost in self.costs.values()
        )
