"""Forward hooks: run a torch module once to learn of it, and leave it as it was.

`check_runs` asks whether it runs at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fettle.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


def forward(model: nn.Module, example: Tensor, hooks: Iterable[RemovableHandle]) -> None:
    """Give `example` [1, C, S, S] to `model` in eval mode, without gradients; then take the hooks,
    which were set on its modules, off.
    """
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)


def check_runs(
    model: nn.Module,
    example: Tensor,
    *,
    what: str,
    rule: str,
    fix: str,
    refusals: tuple[type[Exception], ...] = (RuntimeError,),
) -> None:
    """Check that a changed model still runs on `example` [1, C, S, S].

    Raises ModelError, with these words, where it raises one of `refusals`.
    """
    try:
        forward(model, example, ())
    except refusals as err:
        got = (str(err).splitlines() or [type(err).__name__])[0]
        raise ModelError(what, got=got, rule=rule, fix=fix) from err
