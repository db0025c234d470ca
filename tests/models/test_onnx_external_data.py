"""ONNX models whose weights lie in files of their own: each is part of what the model is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx
from tiny_project import settings

from fettle.errors import ModelError
from fettle.models import onnx_checks
from fettle.models.families import onnx_file as family
from fettle.project import Project, refresh_inputs

RULE = "; such a file lies beside the .onnx or in a folder below it, as a file. Fix: copy "


def apart(folder: Path, location: str = "net.data", *, each: bool = False) -> Path:
    """Write a model with its weights in `location`, or `each` in a file of its tensor's name."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = onnx.load(tiny_onnx.classifier(folder / "whole.onnx"))
    (folder / "whole.onnx").unlink()
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    path = folder / "net.onnx"
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=not each,
        location=None if each else location,
        size_threshold=0,
    )
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        onnx_checks.external_files(path)
    return str(caught.value)


def test_the_files_of_a_model_are_listed_with_its_weights(tmp_path: Path) -> None:
    path = apart(tmp_path)
    options = family.Params(path=str(path))
    assert family.files(options, tmp_path) == [path, tmp_path / "net.data"]


def test_a_file_for_each_tensor_is_listed_once_and_in_order(tmp_path: Path) -> None:
    path = apart(tmp_path, each=True)
    found = onnx_checks.external_files(path)
    assert len(found) > 2
    assert found == sorted(set(found))
    assert set(found) == {one for one in tmp_path.iterdir() if one != path}


def test_weights_in_a_folder_below_are_listed_and_read(tmp_path: Path) -> None:
    path = apart(tmp_path, "weights/net.data")
    assert onnx_checks.external_files(path) == [tmp_path / "weights" / "net.data"]
    onnx_checks.read(path)


def test_a_model_that_holds_its_weights_has_no_other_file(tmp_path: Path) -> None:
    assert onnx_checks.external_files(tiny_onnx.classifier(tmp_path / "net.onnx")) == []


def test_a_file_that_is_no_onnx_has_none_and_is_refused_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"PK not a model")
    assert onnx_checks.external_files(path) == []


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = apart(tmp_path)
    (tmp_path / "net.data").unlink()
    assert refusal(path) == (
        f"net.onnx keeps its weights in another file: got {tmp_path / 'net.data'}: no such file"
        f"{RULE}net.data there, or export the model with its weights inside."
    )


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    path = apart(tmp_path)
    (tmp_path / "net.data").rename(tmp_path / "elsewhere.data")
    (tmp_path / "net.data").symlink_to(tmp_path / "elsewhere.data")
    assert f"got {tmp_path / 'net.data'}, a link{RULE}net.data there" in refusal(path)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    path = apart(tmp_path / "models")
    (tmp_path / "models" / "net.data").rename(tmp_path / "net.data")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../net.data"
    path.write_bytes(proto.SerializeToString())
    assert f"{tmp_path / 'models' / '../net.data'}, outside its folder" in refusal(path)


def test_other_weights_under_the_same_graph_are_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FETTLE_ROOT", raising=False)
    path = apart(tmp_path)
    params = settings(
        "finetune.family=onnx_file", "finetune.options={path: net.onnx}", "compress.recipe=[]"
    )
    kept = tmp_path / "inputs" / "model.json"
    refresh_inputs(Project(tmp_path, tmp_path), params)
    before, graph = kept.read_text(), path.read_bytes()
    weights = np.fromfile(tmp_path / "net.data", np.uint8)
    weights[::-1].tofile(tmp_path / "net.data")
    refresh_inputs(Project(tmp_path, tmp_path), params)
    assert path.read_bytes() == graph
    assert "net.data" in before
    assert kept.read_text() != before


def test_a_workspace_with_the_graph_alone_takes_the_project_s_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, tree = tmp_path / "root", tmp_path / "tree"
    path = apart(root)
    tree.mkdir()
    (tree / "net.onnx").write_bytes(path.read_bytes())
    monkeypatch.setenv("FETTLE_ROOT", str(root))
    found = family.files(family.Params(path="net.onnx"), tree)
    assert found == [root / "net.onnx", root / "net.data"]
