"""Training checkpoint, one file: a killed run goes on where its last epoch ended.

One safetensors file with the JSON state in its header: renamed into place, it is whole or absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

NAME = "checkpoint.safetensors"

Tensors = Mapping[str, torch.Tensor]


def save(folder: Path, parts: Mapping[str, Tensors], state: Mapping[str, object]) -> None:
    """Write named parts ("model", "best", …) of tensors and a JSON state as one file."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = {
        f"{part}/{name}": tensor
        for part, tensors in parts.items()
        for name, tensor in detached(tensors).items()
    }
    temporary = folder / f".{NAME}.{os.getpid()}"
    try:
        save_file(flat, temporary, metadata={"state": json.dumps(state, allow_nan=False)})
        temporary.replace(folder / NAME)
    finally:
        temporary.unlink(missing_ok=True)


def detached(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Copy tensors out, each into plain memory of its own: shared weights are not to be saved."""
    return {
        name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()
    }


def load(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]] | None:  # type: ignore[explicit-any] # JSON of the caller, who wrote it
    """Read back (parts, state); None when there is no file, or one that is cut short."""
    path = folder / NAME
    if not path.is_file():
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as handle:
            state = json.loads(handle.metadata()["state"])
            for key in handle.keys():  # noqa: SIM118 - not a dict: it has no iterator
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = handle.get_tensor(key)
    except SafetensorError:
        return None
    return parts, state
