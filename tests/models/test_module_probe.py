"""Refusals of a user's own module by its dry run, each in full, before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fettle.errors import ModelError
from fettle.models import module_probe

CLASSES, SIZE_PX = 3, 8


class Net(nn.Module):
    """A sound network; `end` is what forward does with its logits."""

    def __init__(self, end: Callable[[torch.Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, CLASSES)
        self.end = end

    def forward(self, x: torch.Tensor) -> Any:
        return self.end(self.head(self.conv(x).relu().mean((2, 3))))


def check(model: nn.Module, roots: list[Path] | None = None) -> None:
    module_probe.check(model, classes=CLASSES, channels=1, size_px=SIZE_PX, roots=roots or [])


def refusal(model: nn.Module, roots: list[Path] | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        check(model, roots)
    text = str(caught.value)
    start = "finetune.options.entry: the module"
    assert text.startswith(start)
    return text.removeprefix(start).strip()


def test_a_sound_module_is_taken_and_left_as_it_was() -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert module_probe.output_layer(model) == "head"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused() -> None:
    traced = torch.jit.trace(Net().eval(), torch.zeros(2, 1, SIZE_PX, SIZE_PX))
    assert refusal(traced) == (
        "is TorchScript: got TopLevelTracedModule; it is trained, cut and exported as a plain "
        "nn.Module. Fix: return the module itself, without torch.jit."
    )


class ExtraState(Net):
    """Keeps a word in its state dict, as `get_extra_state` may."""

    def get_extra_state(self) -> str:
        return "a word"

    def set_extra_state(self, state: str) -> None: ...


class LazyAside(Net):
    """Has a lazy layer that forward never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.LazyLinear(3)


@pytest.mark.parametrize(
    ("kind", "got"),
    [
        (LazyAside, "aside.weight, a UninitializedParameter"),
        (ExtraState, "_extra_state, a str"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_state_that_is_not_all_tensors_is_refused_by_name(kind: type[Net], got: str) -> None:
    assert refusal(kind()) == (
        f"'s state cannot be saved: got {got}; every entry of its state dict is a tensor of a "
        "known size; a lazy layer that forward never runs has none. Fix: take that layer out, or "
        "make it a buffer (register_buffer)."
    )


def test_a_module_whose_parameters_are_all_frozen_has_nothing_to_learn() -> None:
    assert refusal(Net().requires_grad_(False)) == (
        "has nothing to learn: got 4 parameters, all frozen; at least one parameter has "
        "requires_grad. Fix: leave the head's parameters free, or export the network to ONNX and "
        "use the family onnx_file, which trains nothing."
    )


class Brightness(nn.Module):
    """Answers without any parameter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))[:, None].repeat(1, CLASSES)


def test_a_module_without_parameters_has_nothing_to_learn() -> None:
    assert refusal(Brightness()).startswith("has nothing to learn: got no parameters; at least ")


def test_a_module_that_holds_a_computed_tensor_cannot_be_copied() -> None:
    model = Net()
    model.scaled = model.head.weight * 2  # what the old weight_norm leaves behind
    text = refusal(model)
    assert text.startswith("cannot be copied: got RuntimeError: Only Tensors created explicitly")
    assert text.endswith(
        "; copy.deepcopy(module) must work: it is exported and compressed as a copy. Fix: hold no "
        "tensors that were computed from parameters; weight_norm and spectral_norm come from "
        "torch.nn.utils.parametrizations."
    )


def leave(logits: torch.Tensor) -> torch.Tensor:
    raise SystemExit("only on Tuesdays")


def test_a_forward_that_ends_the_process_ends_nothing() -> None:
    assert refusal(Net(leave)).startswith(
        "does not take the images: got SystemExit for [2, 1, 8, 8]: only on Tuesdays; "
    )


def test_a_forward_that_leaves_torch_cannot_be_trained() -> None:
    model = Net(lambda logits: torch.from_numpy(logits.detach().numpy()))
    text = refusal(model)
    assert text.startswith("cannot be trained: got RuntimeError for [3, 1, 8, 8]: element 0 of ")
    assert text.endswith(
        "forward in train mode and backward must run. Fix: run "
        "model.train()(images).sum().backward() in a Python shell and mend it."
    )


def test_a_gradient_that_fails_names_the_line_of_forward(
    project: Path, write: Callable[[str, str], Path]
) -> None:
    write(
        "in_place.py",
        "def halve(logits):\n    kept = logits.sigmoid()\n    kept *= 0.5\n    return kept\n",
    )
    scope: dict[str, Any] = {}
    path = project / "in_place.py"
    exec(compile(path.read_text(), str(path), "exec"), scope)
    text = refusal(Net(scope["halve"]), [project])
    assert text.startswith("cannot be trained: got RuntimeError for [3, 1, 8, 8]: one of the ")
    assert ", at in_place.py line 2 (kept = logits.sigmoid()); " in text


ANSWERS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "nothing": (lambda _: None, "NoneType for [2, 1, 8, 8]"),
    "a word": (lambda _: "cat", "str for [2, 1, 8, 8]"),
    "an empty tuple": (lambda _: (), "tuple for [2, 1, 8, 8]"),
    "an empty dict": (lambda _: {}, "dict for [2, 1, 8, 8]"),
    "no batch": (lambda logits: logits[0], "[3] for [2, 1, 8, 8]"),
    "one more axis": (lambda logits: logits[..., None], "[2, 3, 1] for [2, 1, 8, 8]"),
    "too few": (lambda logits: logits[:, :2], "[2, 2] for [2, 1, 8, 8]"),
}


@pytest.mark.parametrize(("end", "got"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_is_not_a_logit_a_class_is_refused_with_what_came(
    end: Callable[[torch.Tensor], Any], got: str
) -> None:
    text = refusal(Net(end))
    assert text.startswith(f"does not return one logit a class: got {got}; it returns a tensor ")
    assert text.endswith(
        "Fix: give the function a parameter `classes` and size the last layer by it."
    )


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_logits_of_another_precision_are_refused(kind: str) -> None:
    assert refusal(Net(lambda logits: logits.to(getattr(torch, kind)))) == (
        f"does not return one logit a class: got {kind} [2, 3] for [2, 1, 8, 8]; it returns a "
        "tensor [batch, 3] of float32. Fix: leave the module and its answer in float32."
    )


def by_hand(logits: torch.Tensor) -> torch.Tensor:
    grown = logits.exp()
    return grown / grown.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("end", "function"), [(torch.sigmoid, "sigmoid"), (by_hand, "softmax")], ids=["sigmoid", "own"]
)
def test_probabilities_are_refused_however_they_were_made(
    end: Callable[[torch.Tensor], torch.Tensor], function: str
) -> None:
    assert refusal(Net(end)).startswith(
        f"returns probabilities, not logits: got the answers of a {function}; "
    )


def test_a_log_softmax_may_stay() -> None:
    check(Net(lambda logits: logits.log_softmax(1)))
