"""State of the user's module: it is learnt, copied and saved, and holds all that it learns with.

A copy is what is exported, compressed and restored; a module whose hooks point at the original, or
whose layers lie in a plain list, trains well and answers otherwise later.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fettle.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.autograd.graph import Node

AT = "finetune.options.entry"
_TOLERANCE = 1e-3  # of the largest logit: the same kernels on the same images
_SEED = 13  # the same for both, so that what is drawn in forward is drawn alike


def check_kind(model: nn.Module) -> None:
    """Refuse TorchScript, and weights that are not float32."""
    import torch

    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            f"{AT}: the module is TorchScript",
            got=type(model).__name__,
            rule="it is trained, cut and exported as a plain nn.Module",
            fix="return the module itself, without torch.jit",
        )
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and value.dtype != torch.float32:
            raise ModelError(
                f"{AT}: the module is not in float32",
                got=f"{name} in {str(value.dtype).removeprefix('torch.')}",
                rule="it is trained in float32; the targets' precisions come after that",
                fix="return the module with .float(), and leave torch's default type alone",
            )


def check_state(model: nn.Module) -> None:
    """Refuse what cannot be learnt, copied, or saved as plain tensors."""
    import torch
    from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

    lazy = (UninitializedParameter, UninitializedBuffer)
    for name, value in model.state_dict().items():
        if isinstance(value, lazy) or not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{AT}: the module's state cannot be saved",
                got=f"{name}, a {type(value).__name__}",
                rule="every entry of its state dict is a tensor of a known size; a lazy layer that "
                "forward never runs has none",
                fix="take that layer out, or make it a buffer (register_buffer)",
            )
    if not any(p.requires_grad for p in model.parameters()):
        frozen = sum(1 for _ in model.parameters())
        raise ModelError(
            f"{AT}: the module has nothing to learn",
            got=f"{frozen} parameters, all frozen" if frozen else "no parameters",
            rule="at least one parameter has requires_grad",
            fix="leave the head's parameters free, or export the network to ONNX and use the "
            "family onnx_file, which trains nothing",
        )
    check_copied(model)


def check_copied(model: nn.Module) -> None:
    """Refuse what copy.deepcopy refuses: after a step too, which may leave a computed tensor."""
    try:
        copy.deepcopy(model)
    except Exception as err:  # the user's code: any exception may come out
        raise ModelError(
            f"{AT}: the module cannot be copied",
            got=f"{type(err).__name__}: {first_line(err)}",
            rule="copy.deepcopy(module) must work: it is exported and compressed as a copy",
            fix="hold no tensors that were computed from parameters (a buffer that forward "
            "replaces needs .detach()), no open files and no locks; weight_norm and spectral_norm "
            "come from torch.nn.utils.parametrizations",
        ) from err


def check_copy(model: nn.Module, images: torch.Tensor) -> None:
    """Refuse a module whose copy answers `images` otherwise than itself, both in eval mode."""
    import torch

    answers: list[object] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for one in (model.eval(), copy.deepcopy(model).eval()):
            torch.manual_seed(_SEED)
            try:
                answers.append(logits_of(one(images)))
            except Exception as err:  # the user's code: any exception may come out
                answers.append(err)
    own, other = answers
    if isinstance(own, Exception):
        return  # said elsewhere, with its line
    if isinstance(other, Exception):
        got = f"{type(other).__name__} of the copy: {first_line(other)}"
    elif _alike(own, other):
        return
    else:
        got = "another answer to the same images"
    raise ModelError(
        f"{AT}: a copy of the module does not work as the module does",
        got=got,
        rule="it is exported and compressed as a copy.deepcopy; a hook or function that was made "
        "in __init__ with `self` in it still points at the original",
        fix="use the `module` that a hook is given in place of `self`, or do in forward what the "
        "hook does",
    )


def check_registered(model: nn.Module, first: torch.Tensor, second: torch.Tensor) -> None:
    """Refuse weights that forward learns with and the module does not hold.

    `first` and `second` are two answers in train mode: what is in the graph of both, and no
    parameter, would be neither trained nor saved.
    """
    held = {id(p) for p in model.parameters()}
    again = {id(leaf) for leaf in _leaves(second)}
    loose = [leaf for leaf in _leaves(first) if id(leaf) in again and id(leaf) not in held]
    if loose:
        names = _places(model, loose)
        where = f", in {' and '.join(names)}" if names else ""
        raise ModelError(
            f"{AT}: the module uses weights that it does not hold",
            got=f"{len(loose)} tensors ({', '.join(str(list(p.shape)) for p in loose[:3])}){where}",
            rule="only what is registered is trained and saved: an attribute that is a module or "
            "an nn.Parameter; a list or dict of layers is not looked into",
            fix="hold the layers in nn.ModuleList, nn.ModuleDict or nn.Sequential, a tensor in "
            "nn.Parameter",
        )


def logits_of(output: object) -> object:
    """Logits among several outputs, anything the user's forward returns: the one named `logits`,
    else the first.
    """
    if isinstance(output, Mapping):
        return output.get("logits", next(iter(output.values()), None))
    if hasattr(output, "logits"):
        return output.logits
    return output[0] if isinstance(output, tuple | list) and output else output


def first_line(err: BaseException) -> str:
    """Return the first line of an error's text."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _alike(one: object, other: object) -> bool:
    import torch

    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return True  # no logits: said elsewhere
    if one.shape != other.shape:
        return False
    limit = _TOLERANCE * max(float(one.abs().max()), 1e-30)
    return bool((one - other).abs().max() <= limit)


def _leaves(answer: torch.Tensor) -> list[torch.Tensor]:
    """List the tensors that a gradient of `answer` would be given to."""
    found: dict[int, torch.Tensor] = {}
    seen: set[Node] = set()
    waiting = [answer.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
        waiting += [above for above, _ in node.next_functions]
    return list(found.values())


def _places(model: nn.Module, loose: list[torch.Tensor]) -> list[str]:
    """Name the attributes that hold these tensors, as far as they are found."""
    wanted = {id(tensor) for tensor in loose}
    return [
        f"{part}.{name}" if part else name
        for part, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and any(id(t) in wanted for t in _tensors(value))
    ]


def _tensors(value: object, depth: int = 3) -> Iterator[torch.Tensor]:
    import torch
    from torch import nn

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif depth and isinstance(value, Mapping):
        yield from (t for one in value.values() for t in _tensors(one, depth - 1))
    elif depth and isinstance(value, list | tuple | set):
        yield from (t for one in value for t in _tensors(one, depth - 1))
