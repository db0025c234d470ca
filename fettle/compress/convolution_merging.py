"""Convolution merging: two with nothing between them become one, with the same answer.

After a block is gone, the 1x1 that ends one block often meets the 1x1 that begins the next. On
small images the cost is per operator, so one wide convolution is faster than two thin ones, up to
a stated number of multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fettle.compress import compression_plan

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fettle.compress.compression_plan import CompressionPlan

# An operator costs about 5 microseconds whatever it computes (ONNX Runtime, one thread, 32 px), in
# which a Xeon core does some 10 GMAC/s of fp32: merging pays while it adds fewer than these.
ADDED_MACS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class ConvolutionChain:
    """Two convolutions in a row by name; `norm` is the BatchNorm between them, if there is one."""

    first: str
    norm: str | None
    second: str


def merge(
    model: nn.Module, plan: CompressionPlan, example: Tensor
) -> tuple[CompressionPlan, list[str]]:
    """Merge what can be merged in `model`, in place, until nothing is left to merge.

    `example` is [1, C, S, S]. Returns the plan and, in words, what was merged. A model that
    torch.fx cannot follow is left as it is.
    """
    said: list[str] = []
    while True:
        chain = next((run for run in _runs(model) if _pays(model, run, example)), None)
        if chain is None:
            return plan, said
        plan = _merge(model, plan, chain)
        said.append(f"merged '{chain.first}' into '{chain.second}'")


def _runs(model: nn.Module) -> Iterator[ConvolutionChain]:
    import torch.fx
    from torch import nn

    try:
        graph = torch.fx.symbolic_trace(model).graph
    except Exception:  # whatever a model's forward raises on a stand-in for a tensor
        return
    modules = dict(model.named_modules())
    users = {node: list(node.users) for node in graph.nodes}

    def next_layer(node: torch.fx.Node) -> torch.fx.Node | None:
        """Find the one module that reads this node's output, past modules that do nothing."""
        while len(users[node]) == 1:
            node = users[node][0]
            if node.op != "call_module":
                return None
            if not isinstance(modules[str(node.target)], nn.Identity):
                return node
        return None

    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.Conv2d):
            continue
        after, norm = next_layer(node), None
        if after is not None and _foldable(modules[str(after.target)]):
            norm, after = str(after.target), next_layer(after)
        if after is None or not isinstance(modules[str(after.target)], nn.Conv2d):
            continue
        run = ConvolutionChain(str(node.target), norm, str(after.target))
        if _fits(_convolution(model, run.first), _convolution(model, run.second)):
            yield run


def _foldable(layer: nn.Module) -> bool:
    """Say whether a layer is a BatchNorm with statistics and a scale of its own."""
    from torch import nn

    return (
        isinstance(layer, nn.BatchNorm2d)
        and layer.running_mean is not None
        and layer.running_var is not None
        and bool(layer.affine)
    )


def height_width(setting: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a Conv2d's kernel size, stride, padding or dilation.

    Torch types them as any number of sizes, and takes two.
    """
    height, width = setting
    return height, width


def _convolution(model: nn.Module, name: str) -> nn.Conv2d:
    from torch import nn

    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)  # as `_runs` found it
    return layer


def _fits(first: nn.Conv2d, second: nn.Conv2d) -> bool:
    """Say whether one convolution can do exactly what these two do.

    The second must be a 1x1, since a larger one would read the first's bias inside the image and
    zeros in the padding.
    """
    plain = all(
        convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        for convolution in (first, second)
    )
    return (
        plain
        and tuple(second.kernel_size) == (1, 1)
        and tuple(second.padding) == (0, 0)
        and (tuple(second.stride) == (1, 1) or tuple(first.kernel_size) == (1, 1))
    )


def _pays(model: nn.Module, run: ConvolutionChain, example: Tensor) -> bool:
    from fettle.compress import layer_costs

    macs = {layer.name: layer.macs for layer in layer_costs.count_layers(model, example)}
    first, second = _convolution(model, run.first), _convolution(model, run.second)
    pixels = macs[run.second] // (second.in_channels * second.out_channels)
    taps = first.weight[0][0].numel()
    merged = pixels * first.in_channels * second.out_channels * taps
    added: int = merged - macs[run.first] - macs[run.second]
    return added <= ADDED_MACS_MAX


def _merge(model: nn.Module, plan: CompressionPlan, run: ConvolutionChain) -> CompressionPlan:
    """Put the merged convolution in the second's place, and nothing in the others'."""
    import torch
    from torch import nn

    first, second = _convolution(model, run.first), _convolution(model, run.second)
    assert not isinstance(first.padding, str)  # see _fits
    norm = model.get_submodule(run.norm) if run.norm else None
    assert norm is None or isinstance(norm, nn.BatchNorm2d)  # as `_runs` found it
    with torch.no_grad():
        weight, bias = _folded(first, norm)
        mix = second.weight[:, :, 0, 0]
        merged = nn.Conv2d(
            first.in_channels,
            second.out_channels,
            height_width(first.kernel_size),
            stride=height_width(
                tuple(a * b for a, b in zip(first.stride, second.stride, strict=True))
            ),
            padding=height_width(first.padding),
            dilation=height_width(first.dilation),
        ).to(weight)
        merged.weight.copy_(torch.einsum("om,mikl->oikl", mix, weight))
        merged.bias.copy_(mix @ bias + (0 if second.bias is None else second.bias))  # type: ignore[union-attr] # it has one
    for name in (run.first, run.norm):
        if name is not None:
            plan = compression_plan.replace_submodule(model, plan, name, nn.Identity())
    return compression_plan.replace_submodule(model, plan, run.second, merged)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias with the running BatchNorm behind it folded in."""
    import torch

    weight = conv.weight.detach()
    bias = torch.zeros(len(weight)).to(weight) if conv.bias is None else conv.bias.detach()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return weight * scale[:, None, None, None], (bias - norm.running_mean) * scale + norm.bias
