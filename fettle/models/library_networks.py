"""Library networks: those of torchvision and timm by their name, untrained.

    finetune:
      family: torchvision:resnet18          # or timm:mobilenetv3_small_100
      options: {weights: weights/resnet18.pt}

The weights are a state dict of yours: nothing is downloaded. Both libraries are extras.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import TYPE_CHECKING

from fettle.errors import ModelError
from fettle.plugins import suggest

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torchvision", "timm")
_AT = "finetune.family"
# The libraries that an entry may name (see fettle/staleness/reachability.py).
IMPORTS_BY_NAME: tuple[str, ...] = ()


def is_library(entry: str) -> bool:
    """Tell whether an entry names a network of a library: torchvision:resnet18."""
    return entry.partition(":")[0] in LIBRARIES


def check_installed(entry: str) -> None:
    """Refuse a network whose library is not installed; imports nothing. Raises ModelError."""
    library = entry.partition(":")[0]
    if library in LIBRARIES and importlib.util.find_spec(library) is None:
        raise ModelError(
            f"{_AT}: {entry} needs the package {library}",
            got="it is not installed",
            rule="the libraries of networks are extras of fettle, in no lock",
            fix=f"pip install 'fettle-mlops[{library}]'",
        )


def build(entry: str, *, classes: int, channels: int, size_px: int) -> nn.Module:
    """Make the network with a new head of `classes`.

    Raises ModelError when the library is missing, has no such network, or cannot make it so.
    """
    check_installed(entry)
    library, _, name = entry.partition(":")
    _check_import(library)
    make = {"torchvision": _torchvision, "timm": _timm}[library]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of initialisations and names that will change
            return make(name, classes=classes, channels=channels, size_px=size_px)
    except ModelError:
        raise
    except Exception as err:  # the library's: anything may come out
        raise ModelError(
            f"{_AT}: {entry} cannot be made",
            got=f"{type(err).__name__}: {err}",
            rule=f"it is made with {classes} classes, {channels} channels and {size_px} px",
            fix="choose another network, or other preprocess.channels and size_px",
        ) from err


def _check_import(library: str) -> None:
    import torch

    try:
        importlib.import_module(library)
    except Exception as err:  # torchvision's operators fail in their own ways without their torch
        raise ModelError(
            f"{_AT}: the installed {library} cannot be imported",
            got=f"{type(err).__name__}: {str(err).partition(chr(10))[0]}",
            rule=f"its version and build belong to one torch; this is {torch.__version__}",
            fix=f"install the {library} that was built for it, from the same index as torch",
        ) from err


def _torchvision(name: str, *, classes: int, channels: int, size_px: int) -> nn.Module:
    from torchvision import models

    _refuse_name("torchvision", name, models.list_models(module=models))
    if channels != 3:
        raise ModelError(
            f"{_AT}: the networks of torchvision take colour images",
            got=f"preprocess.channels: {channels}",
            fix="set preprocess.channels: 3, for which grey images become colour ones; or take a "
            "network of timm",
        )
    # the others take any side that their strides leave a pixel of
    side = {"image_size": size_px} if name.startswith("vit_") else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **side)
    return network


def _timm(name: str, *, classes: int, channels: int, size_px: int) -> nn.Module:
    import timm

    _refuse_name("timm", name.partition(".")[0], timm.list_models())
    given = {"pretrained": False, "num_classes": classes, "in_chans": channels}
    try:
        network: nn.Module = timm.create_model(name, img_size=size_px, **given)
    except TypeError:  # a convolutional network, which takes any side
        network = timm.create_model(name, **given)
    return network


def _refuse_name(library: str, name: str, there: list[str]) -> None:
    if name not in there:
        raise ModelError(
            f"{_AT}: {library} has no classifier of that name",
            got=f"'{name}'{suggest(name, there)}",
            rule=f"it has {len(there)} of them, {', '.join(there[:3])} and so on",
            fix="choose one: "
            + (
                "torchvision.models.list_models(module=torchvision.models)"
                if library == "torchvision"
                else "timm.list_models()"
            ),
        )
