"""Options and widths for tests of pruning."""

from __future__ import annotations

from torch import nn

from fettle.compress import compression_plan
from fettle.compress.techniques import prune


def options(**changes: object) -> prune.Params:
    return prune.Params.model_validate({"recover_epochs": 0, "bn_reestimate": False, **changes})


def widths(model: nn.Module) -> dict[str, int]:
    found = {
        name: compression_plan.channel_counts(module) for name, module in model.named_modules()
    }
    return {name: size[0] for name, size in found.items() if size is not None}
