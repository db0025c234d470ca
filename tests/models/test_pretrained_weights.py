"""Weights as other programs save them: within a wrapper, of other types, broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fettle.errors import ModelError
from fettle.models import pretrained_weights


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def saved() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return net().state_dict()


def load(path: Path) -> nn.Sequential:
    model = net()
    pretrained_weights.load(model, path, head=model[-1])
    return model


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    return str(caught.value)


PREFIXES = ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("name", "save"), [("w.pt", torch.save), ("w.safetensors", save_file)])
def test_weights_saved_in_a_wrapper_are_the_module_s_own(
    tmp_path: Path, prefix: str, name: str, save: Callable[[dict[str, torch.Tensor], Path], None]
) -> None:
    save({f"{prefix}{key}": value for key, value in saved().items()}, tmp_path / name)
    loaded = load(tmp_path / name).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in saved().items())


def test_a_module_whose_own_names_begin_so_keeps_them(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("model", nn.Linear(4, 3))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    pretrained_weights.load(model, tmp_path / "w.pt", head=model[0])
    assert list(model.state_dict()) == ["model.weight", "model.bias"]


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    halves = {k: v.bfloat16() if v.is_floating_point() else v for k, v in saved().items()}
    save_file(halves, tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors")[0].weight.dtype is torch.float32


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    state = saved()
    state["0.weight"] = state["0.weight"].mul(100).to(torch.int8)
    torch.save(state, tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt") == (
        "finetune.options.weights: w.pt has weights that cannot be used: got 0.weight in int8; "
        "every weight is a finite floating-point number. Fix: save the float weights, before "
        "quantization."
    )


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = saved()
    state["3.bias"][1] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    assert "got 3.bias with 1 of 3 not finite;" in refusal(tmp_path / "w.pt")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
BROKEN = [
    ("w.safetensors", LFS.encode(), "got a Git LFS pointer, not the weights: `git lfs pull`"),
    ("w.pt", LFS.encode(), "got a Git LFS pointer, not the weights: `git lfs pull`"),
    ("w.pt", b"", "w.pt cannot be read: got "),
    ("w.safetensors", b"", "w.safetensors cannot be read: got "),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_file_without_weights_says_what_it_is(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


def test_a_whole_module_is_refused_in_plain_text(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert "holds nothing but tensors" in said
    assert "\x1b" not in said
