from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from fettle.errors import ModelError
from fettle.models.families import torch_module as family

Write = Callable[[str, str], Path]
NET = """
from torch import nn

def build(classes, channels=1):
    body = [nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(144, classes))
"""


def build(project: Path, entry: str = "net_a:build", **options: str) -> nn.Module:
    model: nn.Module = family.build(
        family.Params(entry=entry, **options), classes=3, channels=1, size_px=8, project=project
    )
    return model


def refusal(project: Path, entry: str = "net_a:build", **options: str) -> str:
    with pytest.raises(ModelError) as caught:
        build(project, entry, **options)
    return str(caught.value)


def test_the_function_gets_what_it_accepts_and_nothing_else(project: Path, write: Write) -> None:
    write("net_a.py", NET)
    assert build(project)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_a_function_that_takes_anything_gets_all_three(project: Path, write: Write) -> None:
    write(
        "net_a.py",
        "from torch import nn\n"
        "def build(**given):\n"
        "    assert given == {'classes': 3, 'channels': 1, 'size_px': 8}, given\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n",
    )
    assert isinstance(build(project), nn.Sequential)


def test_modules_in_folders_are_found_from_the_project(project: Path, write: Write) -> None:
    write("models/__init__.py", "")
    write("models/net.py", "from .layers import head\ndef build(classes): return head(classes)\n")
    write(
        "models/layers.py",
        "from torch import nn\ndef head(n): return nn.Sequential(nn.Flatten(), nn.Linear(64, n))\n",
    )
    assert isinstance(build(project, "models.net:build"), nn.Sequential)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_are_loaded(project: Path, write: Write, kind: str) -> None:
    write("net_a.py", NET)
    state = {name: torch.randn_like(value) for name, value in build(project).state_dict().items()}
    path = project / f"w.{kind}"
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    loaded = build(project, weights=f"w.{kind}").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())


def test_a_head_of_another_number_of_classes_stays_new(project: Path, write: Write) -> None:
    write("net_a.py", NET)
    state = dict(build(project).state_dict())
    state["0.weight"] = torch.full_like(state["0.weight"], 7.0)
    state["3.weight"], state["3.bias"] = torch.zeros(1000, 144), torch.zeros(1000)
    save_file(state, project / "w.safetensors")
    loaded = build(project, weights="w.safetensors").state_dict()
    assert torch.equal(loaded["0.weight"], state["0.weight"])
    assert loaded["3.weight"].shape == (3, 144)
    assert loaded["3.weight"].abs().sum() > 0


def test_weights_not_in_a_workspace_are_found_in_the_project_it_was_made_of(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("root/net_a.py", NET)
    write("space/other.txt", "")
    monkeypatch.setenv("FETTLE_ROOT", str(project / "root"))
    state = dict(build(project / "space").state_dict())
    save_file(state, project / "root" / "w.safetensors")
    loaded = build(project / "space", weights="w.safetensors").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())


# refusals


@pytest.mark.parametrize("entry", ["net", "net.build", "net:", ":build", "net:a b", "1net:build"])
def test_an_entry_names_a_module_and_a_function(entry: str) -> None:
    with pytest.raises(ValidationError, match="entry"):
        family.Params(entry=entry)


def test_a_missing_module_is_named(project: Path) -> None:
    assert refusal(project, "no_such.net:build") == (
        "finetune.options.entry: no module 'no_such': got no_such.net:build; modules are looked "
        "for in the project's folder and among installed packages. Fix: check the spelling, or "
        "install the package."
    )


def test_a_module_that_fails_says_how(project: Path, write: Write) -> None:
    write("net_a.py", "raise RuntimeError('half written')")
    assert refusal(project) == (
        "finetune.options.entry: importing 'net_a' failed: got RuntimeError: half written, at "
        "net_a.py line 1 (raise RuntimeError('half written')). Fix: run `python -c 'import net_a'` "
        "in the project's folder and mend it."
    )


def test_a_missing_function_lists_those_there_are(project: Path, write: Write) -> None:
    write("net_a.py", "def make(): ...\ndef other(): ...\n")
    assert refusal(project) == (
        "finetune.options.entry: 'net_a' has no function 'build': got its functions are make, "
        "other. Fix: name one of them after the colon."
    )


def test_a_function_that_fails_says_how(project: Path, write: Write) -> None:
    write("net_a.py", "def build(width): ...\n")
    assert refusal(project) == (
        "finetune.options.entry: net_a:build failed: got TypeError: build() missing 1 required "
        "positional argument: 'width'; it is called with those of classes, channels, size_px that "
        "it accepts. Fix: call it in a Python shell with these values and mend it."
    )


def test_a_function_that_returns_no_module_is_refused(project: Path, write: Write) -> None:
    write("net_a.py", "def build(): return 5\n")
    assert refusal(project) == (
        "finetune.options.entry: net_a:build returned no torch module: got int. Fix: return an "
        "nn.Module that maps [N, C, S, S] to logits [N, classes]."
    )


def test_a_module_for_another_image_size_is_refused(project: Path, write: Write) -> None:
    write("net_a.py", NET.replace("144", "99"))
    text = refusal(project)
    assert text.startswith(
        "finetune.options.entry: the module does not take the images: got RuntimeError for "
        "[2, 1, 8, 8]: "
    )
    assert text.endswith(
        "forward takes float32 [batch, channels, size_px, size_px] of preprocess. Fix: build it "
        "for preprocess.size_px and preprocess.channels, or set these."
    )


def test_a_module_with_another_number_of_classes_is_refused(project: Path, write: Write) -> None:
    write("net_a.py", NET.replace("144, classes", "144, 1000"))
    assert refusal(project) == (
        "finetune.options.entry: the module does not return one logit a class: got [2, 1000] for "
        "[2, 1, 8, 8]; it returns a tensor [batch, 3]. Fix: give the function a parameter "
        "`classes` and size the last layer by it."
    )


def test_missing_weights_are_named(project: Path, write: Write) -> None:
    write("net_a.py", NET)
    assert refusal(project, weights="w.pt") == (
        f"finetune.options.weights: no such file: got {project / 'w.pt'}. Fix: give the path of "
        "the weights."
    )


def test_weights_of_another_network_say_what_differs(project: Path, write: Write) -> None:
    write("net_a.py", NET)
    state = dict(build(project).state_dict())
    state["0.weight"] = torch.zeros(9, 1, 3, 3)
    state["stem.weight"] = state.pop("0.bias")
    save_file(state, project / "w.safetensors")
    assert refusal(project, weights="w.safetensors") == (
        "finetune.options.weights: w.safetensors belongs to another network: got 1 missing "
        "(0.bias); 1 unknown (stem.weight); 1 of another shape (0.weight); names and shapes must "
        "be those of the module's state dict, but for the last layer's shape. Fix: save "
        "model.state_dict() of the very module that entry makes."
    )


def test_a_pickle_that_could_run_code_is_not_opened(project: Path, write: Write) -> None:
    write("net_a.py", NET)
    torch.save(nn.Linear(2, 2), project / "w.pt")
    text = refusal(project, weights="w.pt")
    assert text.startswith("finetune.options.weights: w.pt cannot be read: got Weights only load")
    assert text.endswith(
        "it is a .safetensors file, or a .pt that holds nothing but tensors (a pickle with other "
        "objects could run code). Fix: save it again: safetensors.torch.save_file("
        "model.state_dict(), PATH)."
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_broken_weights_file_cannot_be_read(project: Path, write: Write, name: str) -> None:
    write("net_a.py", NET)
    write(name, "nonsense")
    assert refusal(project, weights=name).startswith(
        f"finetune.options.weights: {name} cannot be read: got "
    )


def test_a_training_checkpoint_is_no_state_dict(project: Path, write: Write) -> None:
    write("net_a.py", NET)
    torch.save({"epoch": 3, "model": build(project).state_dict()}, project / "w.pt")
    assert refusal(project, weights="w.pt") == (
        "finetune.options.weights: w.pt is no state dict: got epoch, model; it maps names to "
        "tensors and holds nothing else. Fix: save model.state_dict() alone."
    )


def test_a_module_without_a_head_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        family.protected(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()))
    assert str(caught.value) == (
        "finetune.options.entry: the module has no head: got Sequential; its last nn.Linear or "
        "nn.Conv gives the logits. Fix: end the network with an nn.Linear."
    )


# groups of a stranger's network


def ids(groups: list[list[nn.Module]]) -> list[list[int]]:
    return [[id(module) for module in group] for group in groups]


def test_groups_go_from_the_head_back_and_are_four_at_most() -> None:
    layers = [nn.Linear(2, 2) for _ in range(8)]
    groups = family.groups(nn.Sequential(*layers))
    assert ids(groups) == [
        [id(layers[7])],
        [id(layers[6]), id(layers[5]), id(layers[4])],
        [id(layers[3]), id(layers[2]), id(layers[1])],
        [id(layers[0])],
    ]


def test_a_wrapper_is_looked_into() -> None:
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(2, 2))
    groups = family.groups(nn.Sequential(nn.Sequential(inner)))
    assert ids(groups) == [[id(inner[2])], [id(inner[0])]]


def test_shared_parameters_make_one_group() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    model = nn.Sequential(one, other)
    assert ids(family.groups(model)) == [[id(model)]]


def test_parameters_of_its_own_make_one_group() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert ids(family.groups(model)) == [[id(model)]]


# what the model depends on


def test_files_are_the_sources_that_the_entry_reaches_and_the_weights(
    project: Path, write: Write
) -> None:
    write("models/__init__.py", "from models import registry\n")
    write("models/net.py", "from . import layers\nimport torch, json\nfrom blocks.conv import A\n")
    write("models/layers.py", "import models.net\n")  # a circle ends
    write("models/registry.py", "")
    write("models/unused.py", "")
    write("blocks/conv.py", "from .act import relu\n")
    write("blocks/act.py", "")
    write("w.pt", "x")
    options = family.Params(entry="models.net:build", weights="w.pt")
    found = [str(p.relative_to(project)) for p in family.files(options, project)]
    assert found == [
        "blocks/act.py",
        "blocks/conv.py",
        "models/__init__.py",
        "models/layers.py",
        "models/net.py",
        "models/registry.py",
        "w.pt",
    ]


def test_listing_the_files_imports_nothing(project: Path, write: Write) -> None:
    write("net_a.py", "raise RuntimeError\nthis is no python")
    options = family.Params(entry="net_a:build")
    assert [p.name for p in family.files(options, project)] == ["net_a.py"]
