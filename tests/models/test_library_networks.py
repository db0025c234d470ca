"""Networks of torchvision and timm by name; doubles stand for these libraries, in no lock."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fettle import params
from fettle.errors import ModelError
from fettle.models import library_networks
from fettle.models.families import torch_module

ROOT = Path(__file__).resolve().parents[2]
# What both libraries offer of what is asked of them: a small network by its name.
TORCHVISION = """
from types import SimpleNamespace
from torch import nn

def _get(name, *, weights, num_classes, **more):
    assert weights is None
    if name == "broken":
        raise ValueError("cannot be built")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, num_classes))
    net.more = more
    return net

models = SimpleNamespace(get_model=_get, list_models=lambda module: ["broken", "tiny", "vit_tiny"])
"""
TIMM = """
from torch import nn

def list_models():
    return ["tiny", "tiny_vit"]

def create_model(name, *, pretrained, num_classes, in_chans, **more):
    assert not pretrained
    if more and name != "tiny_vit":
        raise TypeError("no img_size")
    net = nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, num_classes))
    net.more = more
    return net
"""


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "torchvision.py").write_text(TORCHVISION)
    (folder / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(str(folder))
    for name in library_networks.LIBRARIES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def build(entry: str, project: Path, *, channels: int = 3, weights: str | None = None) -> nn.Module:
    options = torch_module.Params(entry=entry, weights=weights)
    made: nn.Module = torch_module.build(
        options, classes=5, channels=channels, size_px=16, project=project
    )
    return made


def head(model: nn.Module) -> nn.Linear:
    (found,) = torch_module.protected(model)
    assert isinstance(found, nn.Linear)
    return found


def test_a_network_of_either_library_is_built_with_a_head_of_the_data_s_classes(
    libraries: Path, tmp_path: Path
) -> None:
    assert head(build("torchvision:tiny", tmp_path)).out_features == 5
    grey = build("timm:tiny.some_tag", tmp_path, channels=1)
    assert head(grey).out_features == 5
    assert grey(torch.zeros(1, 1, 16, 16)).shape == (1, 5)


def test_a_transformer_is_told_the_side_of_its_images(libraries: Path, tmp_path: Path) -> None:
    assert build("torchvision:vit_tiny", tmp_path).more == {"image_size": 16}
    assert build("torchvision:tiny", tmp_path).more == {}
    assert build("timm:tiny_vit", tmp_path).more == {"img_size": 16}
    assert build("timm:tiny", tmp_path).more == {}


def test_the_user_s_state_dict_is_loaded_and_a_head_of_other_classes_stays_new(
    libraries: Path, tmp_path: Path
) -> None:
    import torchvision  # type: ignore[import-not-found, unused-ignore]  # the double

    theirs = torchvision.models.get_model("tiny", weights=None, num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    mine = build("torchvision:tiny", tmp_path, weights="net.pt")
    assert torch.equal(mine[0].weight, theirs[0].weight)  # type: ignore[index]  # a Sequential
    assert head(mine).out_features == 5
    with pytest.raises(ModelError, match=r"net\.pt belongs to another network"):
        build("timm:tiny", tmp_path, weights="net.pt")


@pytest.mark.parametrize(
    ("entry", "channels", "text"),
    [
        (
            "torchvision:tini",
            3,
            "finetune.family: torchvision has no classifier of that name: got 'tini', did you mean "
            "'tiny'?; it has 3 of them, broken, tiny, vit_tiny and so on. Fix: choose one: "
            "torchvision.models.list_models(module=torchvision.models).",
        ),
        (
            "timm:none",
            3,
            "finetune.family: timm has no classifier of that name: got 'none'; it has 2 of them, "
            "tiny, tiny_vit and so on. Fix: choose one: timm.list_models().",
        ),
        (
            "torchvision:tiny",
            1,
            "finetune.family: the networks of torchvision take colour images: got "
            "preprocess.channels: 1. Fix: set preprocess.channels: 3, for which grey images become "
            "colour ones; or take a network of timm.",
        ),
        (
            "torchvision:broken",
            3,
            "finetune.family: torchvision:broken cannot be made: got ValueError: cannot be built; "
            "it is made with 5 classes, 3 channels and 16 px. Fix: choose another network, or "
            "other preprocess.channels and size_px.",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_to_do(
    libraries: Path, tmp_path: Path, entry: str, channels: int, text: str
) -> None:
    with pytest.raises(ModelError) as caught:
        build(entry, tmp_path, channels=channels)
    assert str(caught.value) == text


def test_a_library_for_another_torch_is_refused_with_the_reason(
    libraries: Path, tmp_path: Path
) -> None:
    (libraries / "torchvision.py").write_text("raise RuntimeError('operator nms\\nis missing')")
    with pytest.raises(ModelError) as caught:
        build("torchvision:tiny", tmp_path)
    assert str(caught.value) == (
        "finetune.family: the installed torchvision cannot be imported: got RuntimeError: operator "
        f"nms; its version and build belong to one torch; this is {torch.__version__}. Fix: "
        "install the torchvision that was built for it, from the same index as torch."
    )


@pytest.mark.parametrize("library", library_networks.LIBRARIES)
def test_a_library_that_is_not_installed_is_named_before_any_work(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, library, raising=False)
    options = torch_module.Params(entry=f"{library}:tiny")
    with pytest.raises(ModelError) as caught:
        torch_module.files(options, tmp_path)  # what `fettle run` asks first
    assert str(caught.value) == (
        f"finetune.family: {library}:tiny needs the package {library}: got it is not installed; "
        "the libraries of networks are extras of fettle, in no lock. Fix: pip install "
        f"'fettle-mlops[{library}]'."
    )


@pytest.mark.parametrize("family", ["torchvision:resnet18", "timm:tiny.a_b", "my.net:build"])
def test_the_short_form_is_a_family_of_its_own_network(family: str) -> None:
    given = [f"finetune.family={family}", "finetune.options={weights: net.pt}"]
    made = params.load(ROOT / "params.yaml", given)
    assert made.finetune.family == "torch_module"
    assert made.finetune.options == {"entry": family, "weights": "net.pt"}
