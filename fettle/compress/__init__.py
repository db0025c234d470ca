"""Compression of a torch module: pruning, distillation, low rank (ONNX: fettle/quantize).

techniques/                one file a technique (plug-ins: `compress.recipe[].use`)
technique.py               what a technique offers, and what it is given

compression_plan           what was cut, as data: re-applied to a fresh network
channel_groups, channel_importance, removable_blocks       what can go, and what is missed least
sensitivity_analysis       the loss after each cut, before any training
layer_costs, torch_operators                               parameters, multiply-accumulates

Called, `fettle.compress(model, train, val)` is the function of fettle/api: see `help(fettle.api)`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

# The function lies above every room, and what depends on this room does not depend on it.
IMPORTS_BY_NAME: tuple[str, ...] = ()


class _CallableModule(ModuleType):
    """Module that is a function too: `fettle.compress` (docs/decisions/0056)."""

    def __call__(self, *given: object, **named: object) -> object:
        room = __name__.rpartition(".")[0]
        api = importlib.import_module(f"{room}.api.compression_project")
        return api.compress(*given, **named)


sys.modules[__name__].__class__ = _CallableModule
