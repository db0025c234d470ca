"""Dry run of the user's module before any training: forward, backward, both memory formats.

What it learns stays on the module (a copy keeps it): the layers in the order they run, the head,
which of several outputs are the logits, and whether the module takes channels-last.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import memory_format, user_traceback
from fettle.errors import ModelError
from fettle.models import module_state_checks
from fettle.models.module_state_checks import AT, first_line, logits_of

if TYPE_CHECKING:
    import torch
    from torch import nn

_EXECUTED, _HEAD = "fettle_executed", "fettle_head"
# Two ways through the same kernels differ by 1e-6 or so; another reading of the memory by far more.
_TOLERANCE = 1e-3
_SEED = 12  # of the probe's own images


def execution_order(model: nn.Module) -> list[str]:
    """Name the layers in the order they finished in the dry run; empty before one."""
    order: list[str] = getattr(model, _EXECUTED, [])
    return order


def output_layer(model: nn.Module) -> str | None:
    """Name the layer that gives the logits; None before a dry run, or where none was found."""
    head: str | None = getattr(model, _HEAD, None)
    return head


def check(
    model: nn.Module, *, classes: int, channels: int, size_px: int, roots: list[Path]
) -> None:
    """Run `model` on drawn images as training will; note on it what was learnt.

    Raises ModelError, with the line of the user's code, when it cannot be trained, copied or saved,
    or when its answer is not float32 logits [batch, classes].
    """
    import torch

    module_state_checks.check_kind(model)
    was_training = model.training
    generator = torch.Generator().manual_seed(_SEED)
    images = torch.randn(3, channels, size_px, size_px, generator=generator)
    model.eval()
    with torch.no_grad():
        answer = _forward(model, images[:2], roots)
    module_state_checks.check_state(model)
    module_state_checks.check_copy(model, images[1:])
    trained = _train_step(model, images, roots)
    if not all(isinstance(logits, torch.Tensor) for logits in (answer, trained)):
        _last(model).register_forward_hook(lambda _module, _inputs, output: logits_of(output))
    _check_answers(answer, trained, classes=classes, batch=2, shape=list(images[:2].shape))
    with torch.no_grad():
        _check_alone(_forward(model, images[:1], roots), classes, list(images[:1].shape))
    _note_order(model, images[:2], classes)
    if not _takes_channels_last(model, images):
        memory_format.keep_plain(model)
    model.train(was_training)


def _forward(model: nn.Module, images: torch.Tensor, roots: list[Path]) -> object:
    shape = list(images.shape)
    try:
        answer: object = model(images)
    except (Exception, SystemExit) as err:  # the user's code: anything may come out
        raise ModelError(
            f"{AT}: the module does not take the images",
            got=f"{type(err).__name__} for {shape}: {err}{user_traceback.line(err, roots)}",
            rule="forward takes float32 [batch, channels, size_px, size_px] of preprocess",
            fix="build it for preprocess.size_px and preprocess.channels, or set these",
        ) from err
    return answer


def _train_step(model: nn.Module, images: torch.Tensor, roots: list[Path]) -> object:
    """Take the gradients of a copy twice in train mode, as two steps do; return its answer."""
    import torch

    def backward(probe: nn.Module) -> object:
        answer: object = probe.train()(images)
        logits = logits_of(answer)
        if isinstance(logits, torch.Tensor):
            logits.float().square().sum().backward()  # type: ignore[no-untyped-call] # torch's own
            again = logits_of(probe(images))
            if not isinstance(again, torch.Tensor):
                raise TypeError(f"the second batch's answer is a {type(again).__name__}")
            again.float().square().sum().backward()  # type: ignore[no-untyped-call] # torch's own
            module_state_checks.check_registered(probe, logits, again)
        return answer

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            probe = copy.deepcopy(model)
            answer = backward(probe)
            module_state_checks.check_copied(probe)
            return answer
        except ModelError:
            raise
        except (Exception, SystemExit) as err:  # the user's code: anything may come out
            line = user_traceback.line(err, roots) or _forward_line(backward, model, roots)
            raise ModelError(
                f"{AT}: the module cannot be trained",
                got=f"{type(err).__name__} for {list(images.shape)}: {first_line(err)}{line}",
                rule="forward in train mode and backward must run",
                fix="run model.train()(images).sum().backward() twice in a Python shell and mend "
                "it; what forward keeps from one batch to the next needs .detach()",
            ) from err


def _forward_line(
    backward: Callable[[nn.Module], object], model: nn.Module, roots: list[Path]
) -> str:
    """Find the line of forward whose gradient failed, by torch's anomaly detection."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with torch.autograd.detect_anomaly():
                backward(copy.deepcopy(model))
        except Exception:
            pass
    text = "\n".join(str(warning.message) for warning in said)
    line = ""
    for file, number, code in re.findall(r'File "(.+?)", line (\d+).*\n\s*(.+)', text):
        name = user_traceback.name(Path(file), roots)
        if name is not None:
            line = f", at {name} line {number} ({code})"
    return line


def _check_answers(
    answer: object,
    trained: object,
    *,
    classes: int,
    batch: int,
    shape: list[int],
) -> None:
    """Raise ModelError unless both modes answer float32 logits [batch, classes]."""
    import torch

    seen: list[torch.Tensor] = []
    for whole, count in ((answer, batch), (trained, batch + 1)):
        logits = logits_of(whole)
        fits = isinstance(logits, torch.Tensor) and list(logits.shape) == [count, classes]
        if not isinstance(logits, torch.Tensor) or not fits or logits.dtype != torch.float32:
            several = not isinstance(whole, torch.Tensor)
            raise ModelError(
                f"{AT}: the module does not return one logit a class",
                got=f"{_shown(whole)} for {[count, *shape[1:]]}",
                rule=f"it returns a tensor [batch, {classes}]"
                + (", alone, under the name logits, or first of several" if several else "")
                + ("" if not fits else " of float32"),
                fix="give the function a parameter `classes` and size the last layer by it"
                if not fits
                else "leave the module and its answer in float32",
            )
        seen.append(logits)
    probability = _probabilities(*seen)
    if probability:
        raise ModelError(
            f"{AT}: the module returns probabilities, not logits",
            got=f"the answers of a {probability}",
            rule="the loss and the server apply the softmax: twice, it learns badly and is unsure",
            fix="return what goes into the softmax or sigmoid (a log_softmax may stay)",
        )


def _check_alone(answer: object, classes: int, shape: list[int]) -> None:
    import torch

    logits = logits_of(answer)
    if isinstance(logits, torch.Tensor) and list(logits.shape) == [1, classes]:
        return
    raise ModelError(
        f"{AT}: the module loses the batch of a single image",
        got=f"{_shown(logits)} for {shape}",
        rule=f"it returns [1, {classes}] for one image",
        fix="replace squeeze() in its forward by flatten(1)",
    )


def _probabilities(logits: torch.Tensor, trained: torch.Tensor) -> str | None:
    """Name the function that ends the module when it makes probabilities, else None."""
    step = trained.grad_fn.name() if trained.grad_fn is not None else ""
    named = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}.get(step)
    sums = logits.sum(dim=1)
    alike = logits.shape[1] > 1 and bool((logits >= 0).all() and ((sums - 1).abs() < 1e-4).all())
    return named or ("softmax" if alike else None)


def _last(model: nn.Module) -> nn.Module:
    """Return what a Sequential runs last: its parts may be run one by one, past its own hooks."""
    from torch import nn

    while type(model) is nn.Sequential and len(model):
        model = model[-1]
    return model


def _note_order(model: nn.Module, images: torch.Tensor, classes: int) -> None:
    """Note the order of the layers, and the head: what makes the logits, or is the last so wide."""
    import torch
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    order: list[str] = []
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str, module: nn.Module, output: object) -> None:
        if name in order:
            order.remove(name)
        order.append(name)
        if isinstance(module, kinds) and isinstance(output, torch.Tensor):
            outputs.pop(name, None)
            outputs[name] = output.detach().clone()

    hooks = [
        module.register_forward_hook(lambda m, _i, output, name=name: note(name, m, output))
        for name, module in model.named_modules()
        if module is not model
    ]
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    parts = dict(model.named_modules())
    wide = [name for name in outputs if len(parts[name].weight) == classes]
    equal = [name for name in wide if torch.equal(outputs[name].flatten(), logits.flatten())]
    chosen = [*outputs, *wide, *equal]
    object.__setattr__(model, _EXECUTED, order)
    object.__setattr__(model, _HEAD, chosen[-1] if chosen else None)


def _takes_channels_last(model: nn.Module, images: torch.Tensor) -> bool:
    """Train a copy for one step channels-last, and compare its answers with the plain ones."""
    import torch

    last = torch.channels_last
    with torch.random.fork_rng(devices=[]):
        try:
            probe = copy.deepcopy(model)
            with torch.no_grad():
                plain = probe.eval()(images)
            probe.to(memory_format=last)  # type: ignore[call-overload] # missing in stubs
            batch = images.to(memory_format=last)
            with torch.no_grad():
                answers = probe(batch)
            with torch.enable_grad():
                probe.train()(batch).sum().backward()
        except Exception:
            return False
    limit = _TOLERANCE * max(float(plain.abs().max()), 1e-30)
    return bool((plain - answers).abs().max() <= limit)


def _shown(value: object) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        kind = "" if value.dtype == torch.float32 else f"{str(value.dtype).removeprefix('torch.')} "
        return f"{kind}{list(value.shape)}"
    parts: list[str] = []
    if isinstance(value, Mapping):
        parts = [f"{name} {_shown(item)}" for name, item in value.items()]
    elif isinstance(value, tuple | list):
        parts = [_shown(item) for item in value]
    inside = f" ({', '.join(parts)})" if parts else ""
    return f"{type(value).__name__}{inside}"
