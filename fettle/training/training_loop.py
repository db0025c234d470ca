"""Training loop: the one behind fine-tuning and behind compression's recovery.

    fitted = fit(model, data=Data(...), plan=Plan(epochs_max=10, learning_rate=1e-3))
    fitted = fit(student, data=data, plan=plan, loss=distillation)   # any loss of yours

`loss(model, inputs, labels)` gets the model in train mode, a normalised and augmented batch
[n, C, S, S] and labels [n] on the model's device (shares of classes [n, classes] where images are
mixed), and returns one scalar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fettle import lazy_array, memory_format
from fettle.errors import ModelError
from fettle.training import (
    augmentation,
    class_balance,
    inference,
    learning_rate_schedule,
    optimizers,
)
from fettle.training.inference import Ints
from fettle.training.training_plan import Epoch, StopTraining, TrainingData, TrainingPlan
from fettle.training.training_run import OnStep, TrainingRun
from fettle.training.weight_averaging import WeightAverage

_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Fitted:
    """Fit result: what a training gave; the model itself holds the weights of `best_epoch` (from
    1). `stopped`: its loss raised StopTraining.
    """

    curve: list[Epoch]
    best_epoch: int
    stopped: bool = False


def fit(
    model: nn.Module,
    *,
    data: TrainingData,
    plan: TrainingPlan,
    groups: Sequence[Sequence[nn.Module]] | None = None,
    loss: Loss | None = None,
    scratch: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_step: OnStep = lambda _number, _of: None,
) -> Fitted:
    """Train `model` in place, leave it in eval mode on its device with its best weights.

    `groups` are lists of layers from the head back to the stem (None: one group). With `scratch`
    each epoch is kept there and a killed run goes on from it: it ends with the same weights, and
    `on_epoch` is told the earlier epochs again; `on_step` of each step that begins. What is frozen
    stays frozen. Raises ModelError when the loss is not finite.
    """
    groups = groups if groups is not None else [[model]]
    model.to(inference.device())
    memory_format.lay_out(model)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    set_batchnorm_momentum(model, plan.batchnorm_momentum)
    optimizer = optimizers.build(
        groups,
        learning_rate=plan.learning_rate,
        decay_per_group=plan.learning_rate_decay_per_group,
        weight_decay=plan.weight_decay,
    )
    run = TrainingRun(model, optimizer, scratch, _average(model, data, plan), on_step)
    run.resume(on_epoch)
    stopped = False
    with torch.random.fork_rng():
        while not run.done(plan):
            try:
                epoch = _epoch(run, data, plan, groups, loss or supervised(data, plan), frozen)
            except StopTraining:
                if not run.curve:
                    raise
                stopped = True
                break
            run.finish(epoch)
            on_epoch(epoch)
    model.load_state_dict(run.best)
    model.requires_grad_(True).eval()
    return Fitted(run.curve, run.best_epoch, stopped)


def _average(model: nn.Module, data: TrainingData, plan: TrainingPlan) -> WeightAverage | None:
    if plan.weight_averaging == "none":
        return None
    return WeightAverage(model, steps=plan.epochs_max * epoch_steps(data, plan))


def epoch_steps(data: TrainingData, plan: TrainingPlan) -> int:
    """Count the steps of an epoch: batches of nearly equal size, so that none is a lone image."""
    return min(_batch_count(data, plan), plan.epoch_steps_max or _batch_count(data, plan))


def _batch_count(data: TrainingData, plan: TrainingPlan) -> int:
    return max(1, round(len(data.train_labels) / plan.batch_images))


def supervised(data: TrainingData, plan: TrainingPlan) -> Loss:
    """Make the plain loss: cross-entropy with the plan's label smoothing and class weights."""

    def cross_entropy(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = model(inputs)
        weights = None
        if plan.imbalance == "weights":
            by_class = class_balance.class_weights(data.train_labels, logits.shape[1])
            weights = torch.from_numpy(by_class).to(logits)
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=plan.label_smoothing)

    return cross_entropy


def set_batchnorm_momentum(model: nn.Module, momentum: float | None) -> None:
    """Set every BatchNorm's momentum; None leaves the model's own.

    On few images a slow average (EfficientNet's 0.01) never reaches the data: 84 % on digits after
    6 epochs where 0.1 gives 96 %.
    """
    if momentum is None:
        return
    for module in model.modules():
        if isinstance(module, _BATCHNORMS):
            module.momentum = momentum


def set_batchnorm_eval(model: nn.Module) -> None:
    """Let every BatchNorm normalise by its running statistics, which then stay as they are.

    Batches of a new data set, at another size, have other statistics than the weights were trained
    with: on photos of clothes at 64 px a head fitted to the features fell from 77 % to 53 % by
    them, and 94 steps of fine-tuning (1,000 images) ended at 65 % where frozen ones gave 82 %.
    """
    for module in model.modules():
        if isinstance(module, _BATCHNORMS):
            module.eval()


def _epoch(
    run: TrainingRun,
    data: TrainingData,
    plan: TrainingPlan,
    groups: Sequence[Sequence[nn.Module]],
    loss: Loss,
    frozen: Sequence[nn.Parameter],
) -> Epoch:
    """Train one epoch, then score the validation split."""
    number = len(run.curve)
    count = learning_rate_schedule.open_groups(
        number,
        groups=len(groups),
        epochs_head=plan.epochs_head,
        unfreeze_every_epochs=plan.unfreeze_every_epochs,
    )
    optimizers.unfreeze(groups, count)
    for parameter in frozen:
        parameter.requires_grad_(False)
    # Seeded anew each epoch, so that a resumed run draws what an unbroken one draws.
    drawn = plan.epochs_before + number
    seed = plan.seed * 100_003 + (drawn % plan.views_epochs if plan.views_epochs else drawn)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout and stochastic depth
    train_loss = _train(run, data, plan, loss, generator)
    with run.judged() as model:
        answers = inference.logits(model, data.validation_pixels, data.normalise)
    rate = run.optimizer.param_groups[0]["lr"]
    validation_loss = inference.loss_of(answers, data.validation_labels)
    _check_finite(validation_loss, plan, at=f"epoch {number + 1}, on validation", rate=rate)
    return Epoch(
        epoch=number + 1,
        phase="all" if count == len(groups) else "head" if count == 1 else "unfreezing",
        train_loss=train_loss,
        validation_loss=validation_loss,
        validation_accuracy=inference.accuracy_of(answers, data.validation_labels),
        learning_rate=rate,
    )


def _train(
    run: TrainingRun, data: TrainingData, plan: TrainingPlan, loss: Loss, generator: torch.Generator
) -> float:
    """Go once over the training images; return the mean loss."""
    where = next(run.model.parameters()).device
    number = len(run.curve)
    batches = _batches(data, plan, generator)
    autocast = where.type == "cuda" and plan.mixed_precision == "auto"  # CPU: 0.5x, measured
    run.model.train()
    if plan.freeze_batchnorm:
        set_batchnorm_eval(run.model)
    total = 0.0
    parts = lazy_array.read_ahead(data.train_pixels, batches)
    for index, (chosen, pixels) in enumerate(zip(batches, parts, strict=True)):
        step = number * len(batches) + index
        run.on_step(step + 1, plan.epochs_max * len(batches))
        rate = _set_rates(run.optimizer, plan, step=step, epoch_steps=len(batches))
        inputs = torch.from_numpy(data.normalise(pixels))
        inputs = augmentation.apply(inputs, plan.augment, std=data.std, generator=generator)
        inputs = inputs.to(where).to(memory_format=torch.channels_last)
        labels = torch.from_numpy(data.train_labels[chosen]).to(where)
        if plan.augment.mixes:
            inputs, labels = augmentation.mix(
                inputs, labels, plan.augment, classes=data.classes, generator=generator
            )
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=autocast):
            value = loss(run.model, inputs, labels)
        reached = float(value.detach())
        _check_finite(reached, plan, at=f"epoch {number + 1}, step {index + 1}", rate=rate)
        run.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        run.step()
        total += reached * len(chosen)
    return total / sum(len(chosen) for chosen in batches)


def _batches(data: TrainingData, plan: TrainingPlan, generator: torch.Generator) -> list[Ints]:
    """Cut a shuffled epoch into batches."""
    count = len(data.train_labels)
    if plan.imbalance == "sampler":
        classes = int(data.train_labels.max()) + 1
        order = class_balance.balanced_order(data.train_labels, classes, generator)
    else:
        order = torch.randperm(count, generator=generator).numpy()
    return np.array_split(order, _batch_count(data, plan))[: epoch_steps(data, plan)]


def _set_rates(
    optimizer: torch.optim.Optimizer, plan: TrainingPlan, *, step: int, epoch_steps: int
) -> float:
    """Give each torch parameter group its rate for this step; return the head's."""
    for part in optimizer.param_groups:
        opened = learning_rate_schedule.opening_epoch(
            part["group"],
            epochs_head=plan.epochs_head,
            unfreeze_every_epochs=plan.unfreeze_every_epochs,
        )
        part["lr"] = part["base_rate"] * learning_rate_schedule.rate_factor(
            step,
            steps=plan.epochs_max * epoch_steps,
            opened_at=opened * epoch_steps,
            warmup_steps=round(plan.warmup_epochs * epoch_steps),
        )
    return float(optimizer.param_groups[0]["lr"])


def _check_finite(value: float, plan: TrainingPlan, *, at: str, rate: float) -> None:
    if math.isfinite(value):
        return
    raise ModelError(
        "training broke down: the loss is not a number",
        got=f"{value} at {at}, learning rate {rate:.3g}",
        rule="a loss must stay finite",
        fix=f"divide {plan.rate_key} by ten; if it happens at step 1, look at "
        "preprocess.mean and preprocess.std and at the model's own weights",
    )
