"""Your own network: a function of yours that makes a torch module, and weights if you have them.

    finetune:
      family: torch_module
      options: {entry: "mymodels.net:build", weights: weights/net.safetensors}

The function is called with those of `classes`, `channels` and `size_px` that it accepts, and
returns a module that maps float32 [N, C, S, S] to logits [N, classes]. Of several outputs the one
named `logits` counts, else the first; the others are not learnt. The head is the layer that makes
the logits, in the order in which layers run. Parameters that you froze stay frozen in fine-tuning.

`family: mymodels.net:build` is short for it; `torchvision:resnet18` and `timm:NAME` are networks of
these libraries (fettle/models/library_networks.py), whose weights expect mean [0.485, 0.456, 0.406]
and std [0.229, 0.224, 0.225] as a rule: set preprocess so.

A run is new when the source files that `entry` imports from the project change, or the weights; a
data file that your code opens by itself is not seen.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field

from fettle import import_isolation, licences, user_traceback
from fettle.errors import ModelError
from fettle.models import library_networks, module_probe, pretrained_weights, user_code
from fettle.models.input_record import InputRecord
from fettle.params import Strict

if TYPE_CHECKING:
    from torch import nn

TRAINS = True

# Parts to cut a user's network in: each costs an epoch before everything learns.
_GROUPS_MAX = 4
_AT = "finetune.options"
# The user's own modules, which inputs/model.json digests (see fettle/staleness/reachability.py).
IMPORTS_BY_NAME: tuple[str, ...] = ()


class Params(Strict):
    """`entry` is "module:function", found from the project's folder; `weights` a state dict.

    A .safetensors file, or a .pt or .pth that holds nothing but tensors. Weights of the last layer
    whose shape differs (another number of classes) are left new.
    """

    entry: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    weights: str | None = None


class ModuleFactory(Protocol):
    """The user's function: it takes some of `classes`, `channels`, `size_px`; what it returns is
    looked at.
    """

    def __call__(self, **sizes: int) -> object:
        """Make the module."""


def input_record(options: Params, project: Path) -> InputRecord:
    """State whether weights are given; what they saw and expect nobody told."""
    del project
    return InputRecord(native=False, pretrained=options.weights is not None)


def licence(options: Params, project: Path) -> str | None:
    """State what a file LICENSE beside the weights says; without weights, one in the project.

    An untrained network of a library has the library's.
    """
    library = options.entry.partition(":")[0]
    if library_networks.is_library(options.entry) and options.weights is None:
        return licences.of_package(library)
    return licences.beside(_licensed(options, project))


def _licensed(options: Params, project: Path) -> Path:
    return user_code.resolve(project, options.weights or ".")


def build(
    options: Params, *, classes: int, channels: int, size_px: int, project: Path
) -> nn.Module:
    """Call the user's function and load the weights.

    Raises ModelError when the module or function is missing, fails, returns no module or one that
    does not fit images and classes, and when the weights are missing, unreadable or another's.
    """
    import torch
    from torch import nn

    # Compiled for one shape and one machine, a forward can be neither counted nor exported.
    torch.compiler.set_stance("force_eager")
    offered = {"classes": classes, "channels": channels, "size_px": size_px}
    roots = user_code.roots(project)
    if library_networks.is_library(options.entry):
        model: object = library_networks.build(options.entry, **offered)
    else:
        model = _call(options, offered, project, roots)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{_AT}.entry: {options.entry} returned no torch module",
            got=type(model).__name__,
            fix="return an nn.Module that maps [N, C, S, S] to logits [N, classes]",
        )
    model = _unwrapped(model)
    module_probe.check(model, classes=classes, channels=channels, size_px=size_px, roots=roots)
    if options.weights is not None:
        path = user_code.resolve(project, options.weights)
        pretrained_weights.load(model, path, head=protected(model)[0])
    return model


def _call(options: Params, offered: dict[str, int], project: Path, roots: list[Path]) -> object:
    """Call the user's function. Raises ModelError when it is missing or fails."""
    function = _function(options.entry, project)
    try:
        with import_isolation.of_the_user(roots), _torch_as_it_was():  # it may import more
            return function(**_accepted(function, offered))
    except (Exception, SystemExit) as err:  # the user's code: anything may come out
        raise ModelError(
            f"{_AT}.entry: {options.entry} failed",
            got=f"{type(err).__name__}: {err}{user_traceback.line(err, roots)}",
            rule=f"it is called with those of {', '.join(offered)} that it accepts",
            fix="call it in a Python shell with these values and mend it",
        ) from err


def files(options: Params, project: Path) -> list[Path]:
    """List the user's files that the model depends on; raise ModelError for a library that is not
    there.

    They are its sources, its weights, their licence.
    """
    library_networks.check_installed(options.entry)
    sources = user_code.source_closure(project, options.entry.partition(":")[0])
    weights = user_code.resolve(project, options.weights) if options.weights else None
    stated = licences.file_beside(_licensed(options, project))
    given = [weights, stated]
    return sources + [file for file in given if file is not None and file.is_file()]


def groups(model: nn.Module) -> list[list[nn.Module]]:
    """Layer groups of a user's network, up to four: the part with the head, then what runs before
    it.

    One group where children share parameters or the module holds parameters of its own. A part
    that is frozen as a whole is in none.
    """
    root, prefix = model, ""
    while True:  # a wrapper with one child is looked into
        named = {n: c for n, c in root.named_children() if any(True for _ in c.parameters())}
        if len(named) != 1 or any(True for _ in root.parameters(recurse=False)):
            break
        name, root = next(iter(named.items()))
        prefix += f"{name}."
    order = module_probe.execution_order(model)

    def place(name: str) -> int:
        """Say when a child last ran; one that never did comes first."""
        whole = prefix + name
        ran = [index for index, n in enumerate(order) if n == whole or n.startswith(f"{whole}.")]
        return max(ran, default=-1)

    children = [named[name] for name in sorted(named, key=place)]
    counted = [id(p) for child in children for p in child.parameters()]
    if len(children) < 2 or sorted(counted) != sorted(id(p) for p in model.parameters()):
        return [[model]]
    head = protected(model)[0]
    first = next(c for c in children if any(m is head for m in c.modules()))
    ordered = [first, *(child for child in reversed(children) if child is not first)]
    first, *rest = [c for c in ordered if any(p.requires_grad for p in c.parameters())] or ordered
    size = -(-len(rest) // (_GROUPS_MAX - 1))
    return [[first], *(rest[start : start + size] for start in range(0, len(rest), size))]


def protected(model: nn.Module) -> list[nn.Module]:
    """Name the head, whose outputs are the classes: the Linear or convolution that runs last.

    Of a module that `build` did not make the last one registered. Raises ModelError when there is
    none.
    """
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    named = dict(model.named_modules())
    layers = [module for module in named.values() if isinstance(module, kinds)]
    if not layers:
        raise ModelError(
            f"{_AT}.entry: the module has no head",
            got=type(model).__name__,
            rule="its last nn.Linear or nn.Conv gives the logits",
            fix="end the network with an nn.Linear",
        )
    name = module_probe.output_layer(model)
    return [layers[-1] if name is None else named.get(name, layers[-1])]


@contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """Take back what the user's code sets for all of torch: its default type, gradients off."""
    import torch

    kind, learns = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(kind)
        torch.set_grad_enabled(learns)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Take a module, and its parts, out of DataParallel and torch.compile: those run it faster on
    one machine, and can be neither cut nor exported.
    """
    from torch import nn

    parts = dict(model.named_children())
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if isinstance(model, parallel) or list(parts) == ["_orig_mod"]:
        return _unwrapped(next(iter(parts.values())))
    for name, child in parts.items():
        bare = _unwrapped(child)
        if bare is not child:
            setattr(model, name, bare)
    return model


def _function(entry: str, project: Path) -> ModuleFactory:
    module_name, _, name = entry.partition(":")
    roots = user_code.roots(project)
    loaded = sys.modules.get(module_name)
    try:
        with import_isolation.of_the_user(roots), _torch_as_it_was():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        line = user_traceback.line(err, roots)
        raise ModelError(
            f"{_AT}.entry: no module '{err.name}'",
            got=f"{entry}{line}",
            rule="modules are looked for in the project's folder and among installed packages",
            fix="check the spelling, or install the package",
        ) from err
    except (Exception, SystemExit) as err:  # the user's code: anything may come out
        raise ModelError(
            f"{_AT}.entry: importing '{module_name}' failed",
            got=f"{type(err).__name__}: {err}{user_traceback.line(err, roots)}",
            fix=f"run `python -c 'import {module_name}'` in the project's folder and mend it",
        ) from err
    own = user_code.file_of(project, module_name)
    if loaded is not None and own is not None and getattr(loaded, "__file__", "") != str(own):
        raise ModelError(
            f"{_AT}.entry: another module is called '{module_name}' already",
            got=f"{getattr(loaded, '__file__', None) or 'a module of Python itself'}, not {own}",
            rule="a module of yours needs a name of its own",
            fix="rename the file, and the name in entry",
        )
    function: ModuleFactory | None = getattr(module, name, None)
    if not callable(function):
        have = sorted(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
        raise ModelError(
            f"{_AT}.entry: '{module_name}' has no function '{name}'",
            got=f"its functions are {', '.join(have) or 'none'}",
            fix="name one of them after the colon",
        )
    return function


def _accepted(function: ModuleFactory, offered: dict[str, int]) -> dict[str, int]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a function of C says nothing of its parameters
        return {}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return offered
    names = {p.name for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY}
    return {name: value for name, value in offered.items() if name in names}
