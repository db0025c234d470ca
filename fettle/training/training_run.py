"""Training run from epoch to epoch: its curve, its best weights, its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from fettle.training import optimizers, training_checkpoint
from fettle.training.training_plan import Epoch, TrainingPlan
from fettle.training.weight_averaging import WeightAverage

OnStep = Callable[[int, int], None]  # (number of the step from 1, of how many)


class TrainingRun:
    """The state of one training between epochs: what a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scratch: Path | None,
        average: WeightAverage | None = None,
        on_step: OnStep = lambda _number, _of: None,
    ) -> None:
        self.model, self.optimizer, self.scratch = model, optimizer, scratch
        self.average, self.on_step = average, on_step
        self.curve: list[Epoch] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch = 0

    def done(self, plan: TrainingPlan) -> bool:
        """Stop at the last epoch, or when patience is over (counted once everything learns)."""
        if len(self.curve) >= plan.epochs_max:
            return True
        if plan.patience_epochs is None or not self.curve or self.curve[-1].phase != "all":
            return False
        opened = sum(epoch.phase != "all" for epoch in self.curve)
        return len(self.curve) - max(self.best_epoch, opened) >= plan.patience_epochs

    def step(self) -> None:
        """Take the optimizer's step, and the weights after it into their average."""
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)

    @contextmanager
    def judged(self) -> Iterator[nn.Module]:
        """Hold the weights that an epoch is judged by in the model: their average, if one is."""
        if self.average is None:
            yield self.model
            return
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.tensors)
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def finish(self, epoch: Epoch) -> None:
        """Note an epoch, keep its weights if it is the best so far, write the checkpoint."""
        self.curve.append(epoch)
        if self.best_epoch == 0 or _score(epoch) >= _score(self.curve[self.best_epoch - 1]):
            self.best_epoch = epoch.epoch
            with self.judged() as model:
                self.best = {k: v.detach().clone() for k, v in model.state_dict().items()}
        if self.scratch is not None:
            training_checkpoint.save(
                self.scratch,
                {
                    "model": self.model.state_dict(),
                    "best": self.best,
                    "optimizer": optimizers.state_tensors(self.optimizer),
                    "average": self.average.tensors if self.average else {},
                },
                {
                    "curve": [e.to_dict() for e in self.curve],
                    "best_epoch": self.best_epoch,
                    "averaged_steps": self.average.taken if self.average else 0,
                },
            )

    def resume(self, on_epoch: Callable[[Epoch], None]) -> None:
        """Resume from the checkpoint in scratch, if there is one."""
        kept = training_checkpoint.load(self.scratch) if self.scratch is not None else None
        if kept is None:
            return
        parts, state = kept
        self.model.load_state_dict(parts["model"])
        optimizers.load_state(self.optimizer, parts.get("optimizer", {}))
        if self.average is not None:
            self.average.resume(parts["average"], state["averaged_steps"])
        self.best = parts["best"]
        self.best_epoch = state["best_epoch"]
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]
        for epoch in self.curve:
            on_epoch(epoch)


def _score(epoch: Epoch) -> tuple[float, float]:
    """Rank an epoch: accuracy on validation first, then its loss."""
    return epoch.validation_accuracy, -epoch.validation_loss
