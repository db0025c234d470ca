"""Modules that hold weights or settings oddly: taken as they are meant, or refused at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from fettle.errors import ModelError
from fettle.models import export_onnx
from fettle.models.families import torch_module as family

Write = Callable[[str, str], Path]
IMPORTS = "import torch\nfrom torch import nn\n"
NET = (
    IMPORTS
    + """
{above}
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, classes)
        {init}

    def forward(self, x):
        x = self.stem(x).relu()
        {step}
        return self.head(x.mean((2, 3)))

def build(classes):
    return {made}
"""
)
RUN_CELLS = "x = self.cells[1](self.cells[0](x))"


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    yield
    torch.compiler.set_stance("default")


def text(*, above: str = "", init: str = "", step: str = "", made: str = "Net(classes)") -> str:
    return NET.format(above=above, init=init or "pass", step=step or "pass", made=made)


def build(project: Path, write: Write, source: str) -> nn.Module:
    write("net_odd.py", source)
    options = family.Params(entry="net_odd:build")
    model: nn.Module = family.build(options, classes=3, channels=1, size_px=8, project=project)
    return model


def refusal(project: Path, write: Write, source: str) -> str:
    with pytest.raises(ModelError) as caught:
        build(project, write, source)
    return str(caught.value)


LISTED = "[nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)]"
LOOSE = [
    pytest.param({"init": f"self.cells = {LISTED}", "step": RUN_CELLS}, "cells", id="list"),
    pytest.param(
        {"init": f"self.cells = dict(enumerate({LISTED}))", "step": RUN_CELLS}, "cells", id="dict"
    ),
    pytest.param(
        {
            "init": "self.scale = torch.ones(4, 1, 1, requires_grad=True)",
            "step": "x = x * self.scale",
        },
        "scale",
        id="tensor",
    ),
]


@pytest.mark.parametrize(("parts", "place"), LOOSE)
def test_weights_that_the_module_does_not_hold_are_refused(
    project: Path, write: Write, parts: dict[str, str], place: str
) -> None:
    said = refusal(project, write, text(**parts))
    assert said.startswith(
        "finetune.options.entry: the module uses weights that it does not hold: got "
    )
    assert f"in {place}; only what is registered is trained and saved" in said
    assert "nn.ModuleList, nn.ModuleDict or nn.Sequential" in said


def test_weights_of_no_attribute_are_refused_too(project: Path, write: Write) -> None:
    said = refusal(
        project,
        write,
        text(above="SCALE = torch.ones(4, 1, 1, requires_grad=True)", step="x = x * SCALE"),
    )
    assert "uses weights that it does not hold: got 1 tensors ([4, 1, 1]); only" in said


def test_the_same_layers_in_a_module_list_are_taken(project: Path, write: Write) -> None:
    source = text(init=f"self.cells = nn.ModuleList({LISTED})", step=RUN_CELLS)
    assert len(build(project, write, source).cells) == 2


HOOKS = [
    "self.seen = []; self.stem.register_forward_hook(lambda m, i, o: self.seen.append(o))",
    "self.seen = {}; self.stem.register_forward_hook(lambda m, i, o: self.seen.update({-1: o}))",
]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_points_at_the_original_is_refused(
    project: Path, write: Write, hook: str
) -> None:
    said = refusal(project, write, text(init=hook, step="x = x + self.seen[-1]"))
    assert said.startswith(
        "finetune.options.entry: a copy of the module does not work as the module does: got "
    )
    assert "use the `module` that a hook is given in place of `self`" in said


def test_a_hook_of_its_own_module_is_taken(project: Path, write: Write) -> None:
    source = text(init="self.stem.register_forward_hook(lambda m, i, o: o * 2)")
    assert isinstance(build(project, write, source), nn.Module)


def test_a_buffer_that_keeps_its_gradient_is_refused(project: Path, write: Write) -> None:
    source = text(
        init="self.register_buffer('mean', torch.zeros(4, 1, 1))",
        step="self.mean = 0.9 * self.mean + x.mean((0, 2, 3)).view(4, 1, 1); x = x - self.mean",
    )
    said = refusal(project, write, source)
    assert "the module cannot be trained: got RuntimeError" in said
    assert "what forward keeps from one batch to the next needs .detach()" in said


KINDS = [
    ("Net(classes).to(torch.bfloat16)", "stem.weight in bfloat16"),
    ("Net(classes).double()", "stem.weight in float64"),
]


@pytest.mark.parametrize(("made", "got"), KINDS)
def test_a_module_in_another_precision_is_refused(
    project: Path, write: Write, made: str, got: str
) -> None:
    assert refusal(project, write, text(made=made)) == (
        f"finetune.options.entry: the module is not in float32: got {got}; it is trained in "
        "float32; the targets' precisions come after that. Fix: return the module with .float(), "
        "and leave torch's default type alone."
    )


WRAPPED = [
    "nn.DataParallel(Net(classes))",
    "torch.compile(Net(classes), backend='eager')",
    "torch.compile(nn.DataParallel(Net(classes)), backend='eager')",
]


@pytest.mark.parametrize("made", WRAPPED)
def test_a_wrapper_is_taken_off(project: Path, write: Write, tmp_path: Path, made: str) -> None:
    model = build(project, write, text(made=made))
    assert sorted(model.state_dict()) == ["head.bias", "head.weight", "stem.bias", "stem.weight"]
    export_onnx.export(model, channels=1, size_px=8, out=tmp_path / "net.onnx")


def test_a_wrapped_part_is_taken_out(project: Path, write: Write) -> None:
    source = text(init="self.stem = torch.compile(self.stem, backend='eager')")
    assert "stem.weight" in build(project, write, source).state_dict()


SETTINGS = ["torch.set_grad_enabled(False)", "torch.set_default_dtype(torch.float64)"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_the_user_s_file_sets_for_all_of_torch_is_taken_back(
    project: Path, write: Write, setting: str
) -> None:
    model = build(project, write, text(above=setting))
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() is torch.float32
    assert model.stem.weight.dtype is torch.float32


def test_a_batch_size_taken_by_len_names_the_way_out(project: Path, write: Write) -> None:
    model = build(project, write, text(step="x = x.view(len(x), 4, 8, 8) + 0 * len(x)"))
    with pytest.raises(ModelError) as caught:
        export_onnx.export(model, channels=1, size_px=8, out=project / "net.onnx")
    said = str(caught.value)
    assert "from x.shape[0] and not from len(x)" in said
    assert "export_onnx.py" not in said
