"""Sparsity: single weights set to zero, by magnitude, by L1 training, or N of every M.

Shapes stay, so no dense runtime is faster for it and the ONNX file is as long as before. What
shrinks is the file under compression (a download, a wheel, an image layer), and the notes say by
how much. So it serves the objective size_bytes only, and any other is refused before training.
Han et al. 2015, arXiv:1506.02626; N:M as in Zhou et al. 2021, arXiv:2102.04010.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from fettle.compress.technique import (
    Capabilities,
    CompressionContext,
    SensitivityReport,
    TechniqueResult,
)
from fettle.params_schema import Fraction, Options, Positive, Strict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=False,
    shrinks_macs=False,
    keeps_shapes=True,
    serves=("size_bytes",),
    reason="zeros in a dense weight are multiplied like any number: no runtime here is faster for "
    "them, only the compressed file is smaller",
)

Nm = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class Params(Strict):
    """Which weights go. One of three: `share` of all, those below `threshold`, or `n_of_m`.

    `share` ranks the weights of all layers together. `threshold` is a share of the layer's largest
    weight. `n_of_m` [2, 4] keeps the 2 largest of every 4 in a row of inputs. With `l1` above 0 the
    weights are first drawn towards zero for `l1_epochs`.
    """

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    n_of_m: Nm | None = None
    l1: Annotated[float, Field(ge=0)] = 0.0
    l1_epochs: Positive = 2
    recover_epochs: Annotated[int, Field(ge=0)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [self.share, self.threshold, self.n_of_m]
        if sum(value is not None for value in given) > 1:
            raise ValueError("give one of share, threshold and n_of_m")
        if self.n_of_m is not None and self.n_of_m[0] >= self.n_of_m[1]:
            raise ValueError(f"n_of_m keeps n of every m weights: {self.n_of_m} keeps them all")
        return self


def proposals(sensitivity: SensitivityReport, *, multiple: int, seed: int) -> list[Options]:
    """Propose half of the weights, then four of five."""
    del sensitivity, multiple, seed
    return [{"share": 0.5}, {"share": 0.8}]


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Zero weights of `model` in place and train the others; the plan stays as it is."""
    weights, skipped = _weights(model, context.protected)
    before = _deflated(weights)
    training = {
        "learning_rate": options.learning_rate,
        "temperature": options.temperature,
        "alpha": options.alpha,
    }
    if options.l1 > 0:
        hooks = [
            weight.register_hook(  # type: ignore[no-untyped-call] # torch's own
                lambda grad, weight=weight: grad + options.l1 * weight.detach().sign()
            )
            for weight in weights.values()
        ]
        context.fit(model, phase="l1", epochs=options.l1_epochs, **training)
        for hook in hooks:
            hook.remove()
    masks = _masks(weights, options)
    apply_masks(weights, masks)
    if options.recover_epochs:
        # A weight at zero without a gradient stays there: Adam moves it by 0, decay by 0.
        hooks = [
            weight.register_hook(  # type: ignore[no-untyped-call] # as above
                lambda grad, keep=masks[name]: grad * keep
            )
            for name, weight in weights.items()
        ]
        context.fit(model, phase="sparse", epochs=options.recover_epochs, **training)
        for hook in hooks:
            hook.remove()
        apply_masks(weights, masks)
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    total = sum(weight.numel() for weight in weights.values())
    note = (
        f"{zeros:,} of {total:,} weights are zero; deflated they take {_deflated(weights):,} bytes "
        f"where it were {before:,}, in the file as many as before"
    )
    return TechniqueResult(plan=plan, skipped=skipped, notes=(note,))


def magnitude_masks(weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Keep all but the smallest `share` of all weights together: boolean masks."""
    import torch

    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    gone = torch.zeros(len(sizes), dtype=torch.bool)
    gone[torch.sort(sizes, stable=True).indices[: round(len(sizes) * share)]] = True
    parts = torch.split(gone, [weight.numel() for weight in weights.values()])
    return {
        name: ~part.reshape(weight.shape)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


def n_of_m_mask(weight: Tensor, *, n: int, m: int) -> Tensor:
    """Keep the n largest of every m weights along the inputs of each output: a boolean mask.

    Inputs beyond the last whole m stay.
    """
    import torch

    rows = weight.detach().abs().flatten(1)
    whole = rows.shape[1] // m * m
    blocks = rows[:, :whole].reshape(len(rows), -1, m)
    best = torch.sort(blocks, dim=2, descending=True, stable=True).indices[:, :, :n]
    mask = torch.zeros_like(blocks, dtype=torch.bool).scatter_(2, best, value=True)
    rest = torch.ones_like(rows[:, whole:], dtype=torch.bool)
    return torch.cat([mask.reshape(len(rows), whole), rest], dim=1).reshape(weight.shape)


def apply_masks(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Mask weights in place: zero what the masks do not keep."""
    import torch

    with torch.no_grad():
        for name, weight in weights.items():
            weight *= masks[name]


def _masks(weights: Mapping[str, Tensor], options: Params) -> dict[str, Tensor]:
    if options.n_of_m is not None:
        n, m = options.n_of_m
        return {name: n_of_m_mask(weight, n=n, m=m) for name, weight in weights.items()}
    if options.threshold is not None:
        limit = options.threshold
        return {
            name: weight.detach().abs() >= limit * weight.detach().abs().max()
            for name, weight in weights.items()
        }
    return magnitude_masks(weights, options.share if options.share is not None else 0.5)


def _weights(
    model: nn.Module, protected: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights that may go, by layer, and the layers left with the reason."""
    from torch import nn
    from torch.nn.utils import parametrize

    chosen: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            continue
        if name in protected:
            skipped[name] = protected[name]
        elif parametrize.is_parametrized(layer):
            skipped[name] = "its weights are computed from others (a parametrization)"
        elif any(layer.weight is other for other in chosen.values()):
            skipped[name] = "it shares its weights with another layer, which is counted"
        else:
            chosen[name] = layer.weight
    return chosen, skipped


def _deflated(weights: Mapping[str, Tensor]) -> int:
    """Count the bytes of the weights under zlib at its best, as a wheel or a layer packs them."""
    raw: Sequence[bytes] = [
        w.detach().cpu().contiguous().numpy().tobytes() for w in weights.values()
    ]
    return len(zlib.compress(b"".join(raw), 9))
