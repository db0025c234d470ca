"""fettle trims a pretrained model until it fits: a small, fast, gated release.

From Python:

    import fettle

    made = fettle.compress("efficientnet_lite", train="photos/train", val="photos/validation")
    fettle.evaluate(made.release, "photos/test").accuracy
    fettle.load(made.release).predict(["photo.jpg"])

Nothing is imported before it is asked for: `fettle --help` pays for none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fettle.api.loaded_release import load as load
    from fettle.api.release_evaluation import evaluate as evaluate

# The functions lie above every room, and no room may be taken to depend on them.
IMPORTS_BY_NAME: tuple[str, ...] = ()
_API = {"evaluate": "release_evaluation", "load": "loaded_release"}  # files of fettle/api


def __getattr__(name: str) -> object:
    if name == "compress":  # the room of that name, which is called as a function (ADR 0056)
        return importlib.import_module(f"{__name__}.compress")
    if name in _API:
        return getattr(importlib.import_module(f"{__name__}.api.{_API[name]}"), name)
    raise AttributeError(f"module 'fettle' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), "compress", *_API])
