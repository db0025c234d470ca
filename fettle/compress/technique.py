"""Compression technique: what each file of fettle/compress/techniques offers and is given.

A technique offers `Params` (every field has a default), `CLAIMS`, and

    apply(model, plan, options: Params, context: CompressionContext) -> TechniqueResult
        changes a torch module in place, within the stage `compress`

It may also offer `proposals(sensitivity: SensitivityReport, *, multiple: int, seed: int)`: its next
moves on the model as it stands, from mild to harsh, each a set of its own options. A search asks
for them; it knows no technique by name.

The maths below each `apply` takes flat keyword arguments; what techniques share lies in
fettle/compress. A contract test holds every file found to its claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fettle.params_schema import Options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fettle.compress.compression_plan import CompressionPlan
    from fettle.compress.layer_costs import LayerCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Capabilities of a technique on any model, checked over every file by a contract test.

    `needs_training`: it asks the context to train. `keeps_shapes`: no tensor changes its shape,
    so the plan stays as it was, but for the side of the images where it `shrinks_images`; the
    module takes images of the old side all the same. The output's shape never changes. `serves`
    are the objectives that it can bring nearer, where it can't bring all: a recipe that holds it
    for another one is refused before any training, with `reason`.
    """

    needs_training: bool
    shrinks_parameters: bool
    shrinks_macs: bool
    keeps_shapes: bool
    shrinks_images: bool = False
    serves: tuple[str, ...] | None = None
    reason: str = ""


class RecoveryFit(Protocol):
    """Train a model in place towards the unpruned float model, on augmented training images.

    The stage makes it from fettle.training. `phase` names the training uniquely within one
    recipe step: a finished phase is not trained again after a kill.
    """

    def __call__(
        self,
        model: nn.Module,
        *,
        phase: str,
        epochs: int,
        learning_rate: float,
        temperature: float,
        alpha: float,
    ) -> None:
        """Train `model`; see distil.distillation_loss for temperature and alpha."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionContext:
    """Compression context: what a stage gives to a technique, by value.

    `example` is one normalised image [1, C, S, S]; `protected` maps a layer's name to the reason
    why its outputs must stay; `channel_multiple` is the vector width that channel counts are
    rounded to; `batches` yields (images [N, C, S, S] normalised, labels [N]) over the training
    images as they are, without augmentation, in a fixed order. `build(family, options)` makes an
    untrained network of another family, for the same images and classes.
    """

    example: torch.Tensor
    protected: Mapping[str, str]
    channel_multiple: int
    seed: int
    batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
    fit: RecoveryFit
    build: Callable[[str, Options], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class TechniqueResult:
    """Technique result: the whole plan so far, layers it left, and why.

    `model` is given only when the technique made another network instead of changing the one it
    got; the plan then names that network's family.
    """

    plan: CompressionPlan
    model: nn.Module | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Removable block: its output has the shape of its input.

    `layers` have parameters; `loss_increase` is the rise of the mean loss (nats an image) when it
    is bypassed, without any training after.
    """

    name: str
    layers: tuple[str, ...]
    params: int
    macs: int
    loss_increase: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSensitivity:
    """Sensitivity of the loss to fewer channels of one group (channel_groups), without training.

    `losses` are (share of the `width` channels kept, rise of the mean loss in nats an image), the
    share falling. `layers` are those that run through the group's channels.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    losses: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityReport:
    """Sensitivity report of a model, for `proposals`: what each part costs and how much hangs on
    it.

    `loss` is the mean cross-entropy of `images` training images (nats); `skipped` says which layers
    cannot be pruned, and why. `as_built`: no technique has acted on it yet. `size_px` is the side
    of its input images.
    """

    layers: tuple[LayerCost, ...]
    blocks: tuple[Block, ...] = ()
    groups: tuple[GroupSensitivity, ...] = ()
    loss: float = 0.0
    images: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    as_built: bool = False
    size_px: int = 32


class RecoveryOptions(Protocol):
    """The options of a technique that trains what it changed, by distillation."""

    @property
    def recover_epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def alpha(self) -> float: ...


def recover(
    model: nn.Module, options: RecoveryOptions, context: CompressionContext, *, phase: str
) -> None:
    """Recovery training of a changed `model`, in place, as its options say; none for 0 epochs."""
    if options.recover_epochs:
        context.fit(
            model,
            phase=phase,
            epochs=options.recover_epochs,
            learning_rate=options.learning_rate,
            temperature=options.temperature,
            alpha=options.alpha,
        )


class Proposals(Protocol):
    """The optional function `proposals` of a module technique."""

    def __call__(
        self, sensitivity: SensitivityReport, *, multiple: int, seed: int
    ) -> list[Options]:
        """Return options for `apply`, mild first; none when the technique has no move left."""
