"""Learning-rate schedule with gradual unfreezing: pure functions of epoch and step."""

from __future__ import annotations

import math


def open_groups(epoch: int, *, groups: int, epochs_head: int, unfreeze_every_epochs: int) -> int:
    """Count the groups that learn in `epoch` (from 0): the head first, then one more at a time.

    With `unfreeze_every_epochs` 0 everything opens at once after the head.
    """
    if epoch < epochs_head:
        return 1
    if unfreeze_every_epochs == 0:
        return groups
    return min(groups, 2 + (epoch - epochs_head) // unfreeze_every_epochs)


def opening_epoch(group: int, *, epochs_head: int, unfreeze_every_epochs: int) -> int:
    """Return the epoch (from 0) in which `group` (0 is the head) begins to learn."""
    return 0 if group == 0 else epochs_head + (group - 1) * unfreeze_every_epochs


def rate_factor(step: int, *, steps: int, opened_at: int, warmup_steps: int) -> float:
    """Scale a group's learning rate at `step` of `steps`: warm-up from its opening, then cosine.

    A group that opens late warms up too, since AdamW's second moments start empty there. The
    cosine (arXiv:1608.03983, no restart) is over all steps, so every group ends together near 0.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    warm = (step - opened_at + 1) / warmup_steps if warmup_steps else 1.0
    return cosine * min(1.0, max(0.0, warm))
