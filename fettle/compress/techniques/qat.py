"""Quantization-aware training (QAT): int8 rounding in the forward pass, fake quantization.

Weights are rounded per output channel to [-127, 127], the inputs of each layer to 256 steps between
a running minimum and maximum; the gradient passes straight through (Jacob et al. 2018, arXiv:
1712.05877). What comes out is an fp32 model like any other, its weights on the int8 grid: export
calibrates and quantizes it as always. BatchNorm needs no folding here: it scales whole channels,
and so does the rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fettle.compress.technique import Capabilities, CompressionContext, TechniqueResult
from fettle.params_schema import Fraction, Positive, Strict

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=False,
    shrinks_macs=False,
    keeps_shapes=True,
)

RANGE_MOMENTUM = 0.1  # of the running range; as BatchNorm's own default


class Params(Strict):
    """How long; a low rate, for the model is trained already and only settles on the grid."""

    epochs: Positive = 4
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Train `model` in place under int8 rounding; the plan stays as it is."""
    layers = _layers(model)
    hooks = [hook for layer in layers for hook in _round(layer)]
    context.fit(
        model,
        phase="qat",
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        temperature=options.temperature,
        alpha=options.alpha,
    )
    for hook in hooks:
        hook.remove()
    for layer in layers:
        _settle(layer)
    return TechniqueResult(
        plan=plan, notes=(f"{len(layers)} layers were trained under int8 rounding",)
    )


def rounded_weight(weight: Tensor) -> Tensor:
    """Round to 255 steps, symmetric, one scale an output channel (the first axis)."""
    import torch

    scale = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-12) / 127
    zero = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


def rounded_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round to 256 steps between `low` and `high` (0-d), zero being one of them."""
    import torch

    scale = ((high - low) / 255).clamp_min(1e-12)
    zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)


def _layers(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    from torch import nn

    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _round(layer: nn.Conv2d | nn.Linear) -> list[RemovableHandle]:
    """Round a layer's weight and input from now on; its range lies in two buffers, as a kill must
    not lose it.
    """
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    class Rounded(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return rounded_weight(weight)

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, lowest, highest = inputs[0], layer.get_buffer("qat_low"), layer.get_buffer("qat_high")
        if layer.training:
            low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
            step = 1.0 if bool(highest <= lowest) else RANGE_MOMENTUM
            lowest.lerp_(low, step)
            highest.lerp_(high, step)
        if bool(highest <= lowest):
            return inputs  # no range was seen yet
        return (rounded_input(x, lowest, highest), *inputs[1:])

    parametrize.register_parametrization(layer, "weight", Rounded())
    for name in ("qat_low", "qat_high"):
        layer.register_buffer(name, torch.zeros((), device=layer.weight.device))
    return [layer.register_forward_pre_hook(before)]


def _settle(layer: nn.Conv2d | nn.Linear) -> None:
    """Leave the rounded weight as the layer's own, and no trace of the rounding."""
    from torch.nn.utils import parametrize

    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    del layer.qat_low, layer.qat_high
