"""Pretrained weights from anywhere: read without running their code, loaded where they fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

LFS = b"version https://git-lfs.github.com/spec/"
# What is put before the names of a module that was saved inside another.
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel's, torch.compile's, Lightning's


def load(model: nn.Module, path: Path, *, head: nn.Module) -> None:
    """Load a file into `model`; where the head's shape differs, the head stays new.

    So do the auxiliary classifiers, whose widths change with the head's. Of shared weights the file
    may name one; the prefix of a wrapper that the module was saved in is dropped. Raises ModelError
    when the file is missing, unreadable, no state dict, another network's, or not of numbers.
    """
    own = model.state_dict()
    state = _without_prefix(_read(path), own)
    _refuse_values(state, own, path)
    state |= _shared(own, state)
    name = next(n for n, module in model.named_modules() if module is head)
    both = state.keys() & own.keys()
    new = {
        key
        for key in both
        if state[key].shape != own[key].shape
        and (
            key.rpartition(".")[0] == name
            or _is_classifier(own, state, key, head=f"{name}.weight" if name else "weight")
        )
    }
    wrong = [key for key in sorted(both - new) if state[key].shape != own[key].shape]
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if wrong or missing or extra:
        differences = [
            f"{len(keys)} {word} ({', '.join(keys[:3])})"
            for word, keys in (
                ("missing", missing),
                ("unknown", extra),
                ("of another shape", wrong),
            )
            if keys
        ]
        raise ModelError(
            f"finetune.options.weights: {path.name} belongs to another network",
            got="; ".join(differences),
            rule="names and shapes must be those of the module's state dict, but for the last "
            "layer's shape",
            fix="save model.state_dict() of the very module that entry makes",
        )
    model.load_state_dict({key: own[key] if key in new else state[key] for key in own})


def _without_prefix(
    state: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Drop what a wrapper put before every name, if the module's own names do not begin so."""
    for prefix in (*_PREFIXES, *_PREFIXES):  # one wrapper inside another
        if all(key.startswith(prefix) for key in state) and not any(
            key.startswith(prefix) for key in own
        ):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _refuse_values(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Raise ModelError for weights that would be loaded and mean something else, or nothing."""
    for key in sorted(state.keys() & own.keys()):
        value = state[key]
        if own[key].is_floating_point() and not value.is_floating_point():
            wrong = f"{key} in {str(value.dtype).removeprefix('torch.')}"
            fix = "save the float weights, before quantization"
        elif value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            wrong, fix = f"{key} with {count} of {value.numel()} not finite", "take an earlier one"
        else:
            continue
        raise ModelError(
            f"finetune.options.weights: {path.name} has weights that cannot be used",
            got=wrong,
            rule="every weight is a finite floating-point number",
            fix=fix,
        )


def _shared(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return what a file leaves out because another of its names holds the same tensor."""
    loaded = {_place(own[key]): state[key] for key in own.keys() & state.keys()}
    missing = [key for key in own if key not in state and own[key].numel()]
    return {key: loaded[_place(own[key])] for key in missing if _place(own[key]) in loaded}


def _place(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _is_classifier(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], key: str, *, head: str
) -> bool:
    """Say whether a tensor differs by the number of classes alone, as the head does."""
    here, there = own[key], state[key]
    return (
        head in own
        and head in state
        and here.ndim == there.ndim > 0
        and len(here) == len(own[head])
        and len(there) == len(state[head])
        and here.shape[1:] == there.shape[1:]
    )


def _read(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(
            "finetune.options.weights: no such file",
            got=str(path),
            fix="give the path of the weights",
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as err:
        raise ModelError(
            f"finetune.options.weights: {path.name} cannot be read",
            got=_first_sentence(err, path),
            rule="it is a .safetensors file, or a .pt that holds nothing but tensors (a pickle "
            "with other objects could run code)",
            fix="save it again: safetensors.torch.save_file(model.state_dict(), PATH)",
        ) from err
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        keys = ", ".join(map(str, list(state)[:4])) if isinstance(state, dict) else type(state)
        raise ModelError(
            f"finetune.options.weights: {path.name} is no state dict",
            got=f"{keys}",
            rule="it maps names to tensors and holds nothing else",
            fix="save model.state_dict() alone",
        )
    return state


def _first_sentence(err: Exception, path: Path) -> str:
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            return "a Git LFS pointer, not the weights: `git lfs pull` fetches them"
    text = re.sub(r"\x1b\[\d*m", "", str(err)).partition("\n")[0].partition(". ")[0]
    return text.strip() or f"{type(err).__name__}, {path.stat().st_size} bytes"
