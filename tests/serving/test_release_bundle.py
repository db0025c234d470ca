from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from fettle import manifest
from fettle.errors import OurFault, ProjectError, TamperedError, UserError
from fettle.hardware.runtimes import ort
from fettle.preprocessing import Floats, Preprocess
from fettle.serving import release_bundle

LABELS = ["left", "middle", "right"]
PREPROCESS = Preprocess(size_px=8, channels=1, mean=0.5, std=0.5)


def write_release(
    folder: Path, *, kind: str = "logits", labels: list[str] = LABELS, threads: int | None = None
) -> Path:
    """Write by hand what bundle.py says that a release is."""
    tiny_onnx.classifier(folder / "model" / "model.onnx")
    manifest.write_json(folder / "preprocess.json", PREPROCESS.to_dict())
    manifest.write_json(folder / "labels.json", labels)
    stated = {
        "schema": "fettle.release/1",
        "name": "tiny",
        "runtime": {"name": "ort", "entry": "model/model.onnx"}
        | ({} if threads is None else {"threads": threads}),
        "output": {"kind": kind},
        "files": {file.path: file.sha256 for file in manifest.list_files(folder)},
    }
    manifest.write_json(folder / "release.json", stated)
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


def some_pixels(count: int, *, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return ((tiny_onnx.images(count, seed=seed) + 1) * 127.5).round().astype(np.uint8)


class Fixed:
    """A session that answers the same row to every image, and notes how many it was given."""

    def __init__(self, row: list[float]) -> None:
        self.row = row
        self.batches: list[int] = []

    def run(self, batch: Floats) -> Floats:
        self.batches.append(len(batch))
        return np.tile(np.array(self.row, dtype=np.float32), (len(batch), 1))


def fixed(row: list[float], kind: str = "logits") -> tuple[release_bundle.ReleaseBundle, Fixed]:
    session = Fixed(row)
    stated = {"output": {"kind": kind}}
    return release_bundle.ReleaseBundle("0", stated, PREPROCESS, tuple(LABELS), session), session


def test_a_loaded_release_answers_as_its_model_does(release: Path) -> None:
    pixels = some_pixels(30)
    session = ort.open(release / "model" / "model.onnx", threads=1)
    logits = session.run(PREPROCESS.normalise(pixels)).astype(np.float64)
    powers = np.exp(logits)
    loaded = release_bundle.load(release)
    assert loaded.labels == tuple(LABELS)
    np.testing.assert_allclose(
        loaded.predict(pixels), powers / powers.sum(axis=1, keepdims=True), rtol=1e-6
    )
    named = [loaded.labels[best.classes[0]] for best in loaded.rank(pixels, most=1)]
    assert named == [LABELS[at] for at in tiny_onnx.labels(30)]


def test_the_digest_of_a_release_is_that_of_its_folder(release: Path) -> None:
    _, digest = release_bundle.verify(release)
    assert digest == manifest.tree_digest(release) == release_bundle.load(release).digest


def test_what_python_or_bentoml_lay_beside_a_release_does_not_change_it(release: Path) -> None:
    _, before = release_bundle.verify(release)
    (release / "__pycache__").mkdir()
    (release / "__pycache__" / "service.cpython-311.pyc").write_bytes(b"x")
    (release / "bento.yaml").write_text("x")
    assert release_bundle.verify(release)[1] == before


@pytest.mark.parametrize("name", ["model/model.onnx", "preprocess.json", "labels.json"])
def test_a_changed_byte_is_refused_in_full_words(release: Path, name: str) -> None:
    expected = manifest.sha256_file(release / name)
    data = bytearray((release / name).read_bytes())
    data[len(data) // 2] ^= 1
    (release / name).write_bytes(data)
    found = manifest.sha256_file(release / name)
    with pytest.raises(TamperedError) as caught:
        release_bundle.load(release)
    assert str(caught.value) == (
        f"{name} of the release is changed: got {found[:12]}; it must match the digest in "
        f"release.json ({expected[:12]}). Fix: do not serve it; run `fettle run`, which packages "
        "it again."
    )


def test_a_missing_file_is_refused(release: Path) -> None:
    (release / "model" / "model.onnx").unlink()
    with pytest.raises(
        TamperedError, match=r"^model/model\.onnx of the release is missing: got no "
    ):
        release_bundle.verify(release)


def test_an_edited_release_json_has_another_digest(release: Path) -> None:
    _, before = release_bundle.verify(release)
    stated = json.loads((release / "release.json").read_text())
    manifest.write_json(release / "release.json", {**stated, "passed": True})
    assert release_bundle.verify(release)[1] != before


def test_a_torn_release_json_is_refused(release: Path) -> None:
    path = release / "release.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(TamperedError) as caught:
        release_bundle.verify(release)
    assert str(caught.value).startswith(f"{path} cannot be read: got ")
    assert str(caught.value).endswith(
        "; it is one JSON object. Fix: do not serve it; run `fettle run`, which packages it again."
    )


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        release_bundle.load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no release: got no release.json in it. Fix: serve a folder below "
        "releases/, or a Bento that `fettle run` built."
    )


@pytest.mark.parametrize(
    ("doc", "got"), [({"schema": "fettle.release/2"}, "fettle.release/2"), ([], "None")]
)
def test_another_schema_is_refused(release: Path, doc: object, got: str) -> None:
    manifest.write_json(release / "release.json", doc)
    with pytest.raises(UserError) as caught:
        release_bundle.verify(release)
    assert str(caught.value) == (
        f"{release / 'release.json'} has another schema than this code reads: got {got}; it must "
        "be fettle.release/1. Fix: serve it with the version of fettle that packaged it."
    )


def test_probabilities_of_the_model_are_not_softened_again() -> None:
    loaded, _ = fixed([0.7, 0.2, 0.1], "probabilities")
    np.testing.assert_allclose(loaded.predict(some_pixels(1)), [[0.7, 0.2, 0.1]], rtol=1e-6)


def test_the_likeliest_come_first_and_only_as_many_as_asked() -> None:
    loaded, _ = fixed([0.1, 0.3, 0.6], "probabilities")
    (best,) = loaded.rank(some_pixels(1), most=2)
    assert [loaded.labels[at] for at in best.classes] == ["right", "middle"]
    assert best.probabilities == [0.6, 0.3]  # without float32's tail: 0.6000000238418579


@pytest.mark.parametrize(("stated", "opened"), [(None, 1), (3, 3)])
def test_a_release_runs_with_the_threads_that_it_was_measured_with(
    tmp_path: Path, stated: int | None, opened: int
) -> None:
    session = release_bundle.load(write_release(tmp_path / "r", threads=stated)).session
    assert isinstance(session, ort.OrtSession)
    options = session._session.get_session_options()  # what ONNX Runtime itself was told
    assert options.intra_op_num_threads == opened


def test_a_large_batch_runs_in_parts_and_keeps_its_order() -> None:
    loaded, session = fixed([1.0, 0.0, 0.0])
    assert loaded.predict(some_pixels(70)).shape == (70, 3)
    assert session.batches == [32, 32, 6]


def test_the_parts_of_a_large_batch_answer_as_one(release: Path) -> None:
    loaded, pixels = release_bundle.load(release), some_pixels(70)
    alone = np.concatenate([loaded.predict(pixel[None]) for pixel in pixels])
    np.testing.assert_allclose(loaded.predict(pixels), alone, rtol=1e-5)


def test_labels_that_do_not_fit_the_model_are_our_fault(tmp_path: Path) -> None:
    loaded = release_bundle.load(write_release(tmp_path / "r", labels=["a", "b"]))
    with pytest.raises(OurFault) as caught:
        loaded.predict(some_pixels(4))
    assert str(caught.value) == (
        "the model's answer does not fit the labels: got shape [4, 3]; 4 images and 2 labels."
    )


def test_softmax_of_huge_logits_does_not_overflow() -> None:
    rows = release_bundle.softmax(np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_warming_up_runs_the_model_once() -> None:
    loaded, session = fixed([1.0, 0.0, 0.0])
    loaded.warm_up()
    assert session.batches == [1]
