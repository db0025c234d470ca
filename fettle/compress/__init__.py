"""Hold the compression techniques, one file each; the file name is its name in params.yaml.

A technique offers `Params` (every field has a default), `CLAIMS`, and `apply`:

    kind "module"   apply(model, plan, options: Params, workshop: Workshop) -> Outcome
                    changes a torch module in place, within the stage `compress`
    kind "graph"    acts on an ONNX file, within the stage `export`; its file states its signature

The maths below each `apply` takes flat keyword arguments. Files that begin with '_' are parts the
techniques share, not techniques. A contract test holds every file found to its claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fettle.compress._plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a technique does to any model, checked over every file by a contract test.

    `needs_training`: it asks the workshop to train. `keeps_shapes`: no tensor changes its shape,
    so the prune plan stays as it was. Input and output shapes of the model never change.
    """

    kind: Literal["module", "graph"]
    needs_training: bool
    shrinks_parameters: bool
    shrinks_macs: bool
    keeps_shapes: bool


class Fit(Protocol):
    """Train a model in place towards the unpruned float model, on augmented training images.

    The stage makes it from the training room. `phase` names the training uniquely within one
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
        """Train `model`; see distil.loss for temperature and alpha."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What a stage lends to a module technique, by value.

    `example` is one normalised image [1, C, S, S]; `protected` maps a layer's name to the reason
    why its outputs must stay; `channel_multiple` is the vector width that channel counts are
    rounded to; `batches` yields (images [N, C, S, S] normalised, labels [N]) over the training
    images as they are, without augmentation, in a fixed order.
    """

    example: torch.Tensor
    protected: Mapping[str, str]
    channel_multiple: int
    seed: int
    batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
    fit: Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a module technique hands back: the whole plan so far, layers it left, and why."""

    plan: Plan
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
