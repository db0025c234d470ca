"""fettle.compress before it runs: the project it makes, and what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import fettle
from fettle import params
from fettle.api import compression_project, labelled_images, user_network
from fettle.cli.project_template import make_project
from fettle.errors import DataError, ModelError, ParamsError, ProjectError, UserError


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(9, 8, 3), dtype=np.uint8)


def photos(folder: Path, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        Image.fromarray(picture(index)).save(folder / name / "1.png")
    return folder


def table(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as handle:
        return [tuple(row) for row in csv.reader(handle)][1:]


def test_images_of_every_form_become_one_table_with_their_splits(tmp_path: Path) -> None:
    train = photos(tmp_path / "train")
    val = ([picture(1), picture(2)], np.array([0, 1]))

    class Pairs:  # as a torch Dataset, which need not end with an IndexError
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
            return picture(index), "dog"

    out = labelled_images.write(
        {"train": train, "validation": val, "test": Pairs()}, tmp_path / "data"
    )

    rows = table(out)
    assert [row[1:] for row in rows] == [
        ("cat", "train"),
        ("dog", "train"),
        ("0", "validation"),
        ("1", "validation"),
        ("dog", "test"),
        ("dog", "test"),
    ]
    assert Path(rows[0][0]) == train / "cat" / "1.png"
    assert (np.asarray(Image.open(rows[2][0])) == picture(1)).all()


def test_the_same_images_again_leave_every_file_as_it_was(tmp_path: Path) -> None:
    pairs = [(picture(seed), "cat") for seed in range(4)]
    before = labelled_images.write({"train": pairs, "validation": pairs[:1]}, tmp_path)
    stats = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.png")}
    labelled_images.write({"train": pairs, "validation": pairs[:1]}, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.png")} == stats
    labelled_images.write({"train": pairs[:2], "validation": pairs[:1]}, tmp_path)
    assert len(list(tmp_path.glob("*/*.png"))) == len(table(before)) == 3


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "train has no images"),
        (([1, 2], [1]), "more images than labels, or fewer: got 2 images and 1 labels"),
        ([picture(0)], "gave something else than an image with its label: got a ndarray at 0"),
        ([(picture(0), None)], "image 0 of train has no label: got None"),
        ([(picture(0), 0.5)], r"image 0 of train has no label: got 0\.5"),
        (7, "train is no data set: got int"),
        ("gone", "train: there is nothing at gone"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, data: object, text: str) -> None:
    with pytest.raises(DataError, match=text):
        labelled_images.write({"train": data}, tmp_path)


def test_a_folder_with_splits_of_its_own_stands_alone(tmp_path: Path) -> None:
    photos(tmp_path / "all" / "train")
    photos(tmp_path / "all" / "test")
    with pytest.raises(DataError, match="train names splits of its own") as caught:
        labelled_images.write({"train": tmp_path / "all", "test": photos(tmp_path / "t")}, tmp_path)
    assert "give that folder alone, as train" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "family", "options"),
    [
        ("resnet", "resnet", {}),
        ({"family": "resnet", "options": {"depth": 18}}, "resnet", {"depth": 18}),
        ("mymodels.net:build", "torch_module", {"entry": "mymodels.net:build"}),
    ],
)
def test_a_model_is_a_family_or_a_function_that_builds_one(
    tmp_path: Path, model: object, family: str, options: dict[str, object]
) -> None:
    choice = user_network.choose(model, tmp_path)
    assert (choice.family, choice.options) == (family, options)


def test_a_network_in_memory_is_read_back_with_its_weights_by_the_stages(tmp_path: Path) -> None:
    import torch

    from fettle.models.families import torch_module

    class OfANotebook(nn.Sequential):  # found in no module: pickled by value
        pass

    torch.manual_seed(3)
    network = OfANotebook(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    choice = user_network.choose(network, tmp_path)
    options = torch_module.Params.model_validate(dict(choice.options))
    read = torch_module.build(options, classes=2, channels=1, size_px=8, project=tmp_path)
    assert all((read.state_dict()[k] == v).all() for k, v in network.state_dict().items())

    before = (tmp_path / f"{user_network.ENTRY}.py").read_text()
    nn.init.zeros_(network[3].bias)  # type: ignore[arg-type]  # a layer's own
    user_network.choose(network, tmp_path)
    # the file that fettle digests changes with the weights
    assert (tmp_path / f"{user_network.ENTRY}.py").read_text() != before


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (3, "this is no model: got int"),
        ("gone.onnx", "there is no ONNX file there: got .*gone.onnx"),
        ({"name": "resnet"}, "the model has other keys"),
        (nn.Sequential(nn.Module()).register_forward_hook, "this is no model: got method"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, model: object, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        user_network.choose(model, tmp_path)


def write_params(folder: Path, *, budget: object = None, **settings: object) -> params.Params:
    choice = user_network.FamilyChoice("small_cnn")
    given = {key.replace("__", "."): value for key, value in settings.items()}
    compression_project._write_params(folder, choice, budget, given)  # type: ignore[arg-type]
    return params.load(folder / "params.yaml")


def test_its_params_are_the_template_s_with_model_budget_and_settings_over_it(
    tmp_path: Path,
) -> None:
    made = write_params(tmp_path, budget=0.04, finetune__epochs_max=3, targets=["x86_ort_int8"])
    assert (made.finetune.family, made.finetune.epochs_max) == ("small_cnn", 3)
    assert made.compress.budget.drop_max == 0.04
    assert made.targets == ["x86_ort_int8"]
    assert made.ingest.source == "image_folder"
    made = write_params(tmp_path, budget={"metric": "macro_f1", "drop_max": 0.1})
    assert made.compress.budget.metric == "macro_f1"


def test_a_setting_that_is_wrong_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown key 'finetune\.epochs'"):
        write_params(tmp_path, finetune__epochs=3)
    with pytest.raises(ParamsError, match=r"compress\.budget\.drop_max"):
        write_params(tmp_path, budget=2)
    with pytest.raises(UserError, match="settings: seed has a value that"):
        write_params(tmp_path, seed={1, 2})
    assert not (tmp_path / "params.yaml").exists()


def test_a_folder_that_something_else_made_is_left_alone(tmp_path: Path) -> None:
    project = tmp_path / "mine"
    make_project(project, data=None)
    before = (project / "params.yaml").read_text()
    with pytest.raises(ProjectError, match=r"mine was not made by fettle\.compress") as caught:
        fettle.compress("small_cnn", photos(tmp_path / "p"), project=project)  # type: ignore[operator]
    assert "its params.yaml would be written over" in str(caught.value)
    assert (project / "params.yaml").read_text() == before


def test_an_error_of_the_run_is_the_command_line_s_own(tmp_path: Path) -> None:
    place = photos(tmp_path / "photos", ("cat",))  # one class
    with pytest.raises(UserError, match="has one class: got 'cat'") as caught:
        fettle.compress("small_cnn", place, project=tmp_path / "made")  # type: ignore[operator]
    assert not str(caught.value).startswith("fettle:")
    assert "Fix: " in str(caught.value)
