from __future__ import annotations

from pathlib import Path

import pytest

from fettle import manifest
from fettle.errors import ProjectError, TamperedError
from fettle.measure import Measure


def seal(folder: Path) -> manifest.Manifest[manifest.UnreadFacts]:
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "sub" / "labels.json").write_text("[]")
    return manifest.write(
        folder,
        "compress",
        inputs={"finetune": "ab"},
        measures={"accuracy": Measure(value=0.5, unit="1", n=10, low=0.2, high=0.8)},
        facts=manifest.UnreadFacts({"classes": ["a", "b"]}),
    )


def test_a_sealed_folder_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = seal(tmp_path / "a")
    assert manifest.read(tmp_path / "a") == written
    assert [f.path for f in written.files] == ["model.onnx", "sub/labels.json"]


def test_same_content_in_another_folder_has_the_same_digest(tmp_path: Path) -> None:
    assert seal(tmp_path / "a").digest == seal(tmp_path / "b").digest


def test_a_manifest_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    seal(tmp_path / "a")
    assert str(tmp_path) not in (tmp_path / "a" / "manifest.json").read_text()


@pytest.mark.parametrize("how", ["changed", "missing", "not listed"])
def test_a_file_edited_by_hand_is_refused_by_name(tmp_path: Path, how: str) -> None:
    seal(tmp_path / "a")
    path = tmp_path / "a" / "model.onnx"
    if how == "changed":
        path.write_bytes(b"Weights")
    elif how == "missing":
        path.unlink()
    else:
        path = tmp_path / "a" / "extra"
        path.write_text("")
    with pytest.raises(TamperedError) as caught:
        manifest.read(tmp_path / "a")
    text = str(caught.value)
    assert text.startswith(f"{path} is {how}: got ")
    assert text.endswith(
        f"Fix: delete {tmp_path / 'a'} and run `fettle run`: the good copy comes from the cache."
    )


def test_a_folder_without_a_manifest_is_no_finished_artefact(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no finished artefact in"):
        manifest.read(tmp_path)


def test_tree_digest_sees_names_and_bytes_but_no_bytecode(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = manifest.tree_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("")
    assert manifest.tree_digest(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert manifest.tree_digest(tmp_path) != first


def test_a_failed_write_leaves_the_old_text_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    manifest.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        manifest.write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]
