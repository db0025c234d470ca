"""Modules as people write them: they train, or are refused where they are built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fettle import memory_format
from fettle.errors import ModelError
from fettle.models.families import torch_module as family
from fettle.training import class_balance, inference

Write = Callable[[str, str], Path]
HEAD_FIRST = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(4, classes)
        self.stem = nn.Conv2d(1, 4, 3)
        self.body = nn.Conv2d(4, 4, 3)
        self.unused = nn.Linear(2, classes)

    def forward(self, x):
        x = self.body(self.stem(x).relu()).relu()
        {end}

build = Net
"""
PLAIN = "return self.fc(x.mean((2, 3)))"


def build(project: Path, write: Write, text: str, **options: str) -> nn.Module:
    write("net_p.py", text)
    chosen = family.Params(entry="net_p:build", **options)
    model: nn.Module = family.build(chosen, classes=3, channels=1, size_px=8, project=project)
    return model


def refusal(project: Path, write: Write, end: str) -> str:
    with pytest.raises(ModelError) as caught:
        build(project, write, HEAD_FIRST.format(end=end))
    return str(caught.value)


def test_a_view_is_trained_in_plain_strides(project: Path, write: Write) -> None:
    end = "return self.fc(x.view(len(x), -1)[:, :4])"
    model = build(project, write, HEAD_FIRST.format(end=end))
    assert memory_format.of(model) is torch.contiguous_format
    memory_format.lay_out(model)
    images = torch.rand(2, 1, 8, 8).to(memory_format=torch.channels_last)
    model.train()(images).sum().backward()


def test_a_module_that_takes_channels_last_keeps_it(project: Path, write: Write) -> None:
    model = build(project, write, HEAD_FIRST.format(end=PLAIN))
    assert memory_format.of(model) is torch.channels_last


def test_the_head_is_what_makes_the_logits_in_any_order(project: Path, write: Write) -> None:
    model = build(project, write, HEAD_FIRST.format(end=PLAIN))
    assert family.protected(model) == [model.fc]
    groups = family.groups(model)
    assert groups == [[model.fc], [model.body], [model.stem], [model.unused]]


def test_weights_of_other_classes_leave_a_head_made_first_new(project: Path, write: Write) -> None:
    text = HEAD_FIRST.format(end=PLAIN).replace("self.unused = nn.Linear(2, classes)", "pass")
    state = dict(build(project, write, text).state_dict())
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 4), torch.zeros(1000)
    save_file(state, project / "w.safetensors")
    loaded = build(project, write, text, weights="w.safetensors")
    assert loaded.fc.weight.shape == (3, 4)
    assert torch.equal(loaded.stem.weight, state["stem.weight"])


@pytest.mark.parametrize("end", ["y, x", "dict(aux=x, logits=y)"])
def test_of_several_outputs_the_logits_are_taken(project: Path, write: Write, end: str) -> None:
    text = HEAD_FIRST.format(end=f"y = self.fc(x.mean((2, 3)))\n        return {end}")
    assert build(project, write, text)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_several_outputs_without_logits_first_are_refused(project: Path, write: Write) -> None:
    assert refusal(project, write, "return x, self.fc(x.mean((2, 3)))") == (
        "finetune.options.entry: the module does not return one logit a class: got tuple ([2, 4, "
        "4, 4], [2, 3]) for [2, 1, 8, 8]; it returns a tensor [batch, 3], alone, under the name "
        "logits, or first of several. Fix: give the function a parameter `classes` and size the "
        "last layer by it."
    )


def test_probabilities_are_refused(project: Path, write: Write) -> None:
    assert refusal(project, write, "return self.fc(x.mean((2, 3))).softmax(1)") == (
        "finetune.options.entry: the module returns probabilities, not logits: got the answers of "
        "a softmax; the loss and the server apply the softmax: twice, it learns badly and is "
        "unsure. Fix: return what goes into the softmax or sigmoid (a log_softmax may stay)."
    )


def test_what_fails_in_training_alone_names_its_line(project: Path, write: Write) -> None:
    text = refusal(project, write, "assert not self.training; " + PLAIN)
    assert text.startswith("finetune.options.entry: the module cannot be trained: got Assertion")
    assert "at net_p.py line 14 (assert not self.training; return" in text


def test_a_squeeze_that_loses_a_single_image_is_refused(project: Path, write: Write) -> None:
    assert "loses the batch of a single image: got [3] for [1, 1, 8, 8]" in refusal(
        project, write, "return self.fc(x.mean((2, 3))).squeeze()"
    )


def answers(model: nn.Module) -> np.ndarray:
    pixels = np.random.default_rng(2).integers(0, 256, size=(6, 1, 8, 8)).astype(np.uint8)
    return inference.logits(model, pixels, lambda some: some.astype(np.float32) / 255)


def test_thresholds_are_folded_into_a_head_made_first(project: Path, write: Write) -> None:
    model = build(project, write, HEAD_FIRST.format(end=PLAIN))
    before, stem = answers(model), dict(model.named_parameters())["stem.bias"].clone()
    amounts = np.array([0.5, 0.0, -0.5], dtype=np.float32)
    head = family.protected(model)[-1]
    class_balance.check_offsets_fold(head, lambda: answers(model))
    np.testing.assert_array_equal(answers(model), before)
    class_balance.fold_offsets(head, amounts)
    np.testing.assert_allclose(answers(model) - before, np.tile(amounts, (6, 1)), atol=1e-6)
    assert torch.equal(dict(model.named_parameters())["stem.bias"], stem)


@pytest.mark.parametrize(
    ("end", "got"),
    [
        ("return self.fc(x.mean((2, 3))) * 3", "logits that do not follow the bias of Linear"),
        ("return self.fc(x.mean((2, 3))).log_softmax(1)", "logits that do not follow the bias"),
    ],
)
def test_thresholds_that_would_not_come_out_are_refused_before_training(
    project: Path, write: Write, end: str, got: str
) -> None:
    model = build(project, write, HEAD_FIRST.format(end=end))
    before = answers(model)
    with pytest.raises(ModelError) as caught:
        class_balance.check_offsets_fold(family.protected(model)[-1], lambda: answers(model))
    text = str(caught.value)
    assert text.startswith("finetune.imbalance: thresholds cannot be folded into this model: got ")
    assert got in text
    np.testing.assert_array_equal(answers(model), before)
