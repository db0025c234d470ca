"""fettle.load and fettle.evaluate: the server's answers, in this process."""

from __future__ import annotations

import gc
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from asgi_client import asked
from PIL import Image
from tiny_release import TinyRelease

import fettle
from fettle.api import CompressedRelease
from fettle.errors import DataError, ProjectError, TamperedError, UserError
from fettle.serving import release_bundle
from fettle.serving.predict_route import PredictRoute


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = TinyRelease(tmp_path_factory.mktemp("released"))
    made.package()
    return made.release


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(20, 24, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


def test_its_answers_are_those_of_the_server_s_route(release: Path) -> None:
    route = PredictRoute(release_bundle.load(release))
    with fettle.load(release) as loaded:
        answers = loaded.predict([png(seed) for seed in range(5)])
    for seed, answer in enumerate(answers):
        served = asked(route, png(seed), content_type="image/png").json[0]
        assert answer.label == served["label"]
        assert answer.probability == pytest.approx(served["probability"], abs=2e-6)
        assert [label for label, _ in answer.top] == [one["label"] for one in served["top"]]


def test_an_image_is_the_same_in_every_form_it_can_be_given_in(
    release: Path, tmp_path: Path
) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(png(3))
    array = pixels(3)
    forms = [
        str(path),
        path,
        png(3),
        Image.open(path),
        array,
        np.moveaxis(array, 2, 0),
        array.astype(np.float32) / 255,
        torch.from_numpy(array).permute(2, 0, 1).float() / 255,
    ]
    with fettle.load(release) as loaded:
        together = loaded.predict(forms)
        assert set(together) == {together[0]}
        for one in forms:
            assert loaded.predict(one) == together[:1]
        assert loaded.predict(np.stack([array, array])) == together[:2]
        assert loaded.predict([]) == []


def test_an_image_that_the_server_would_refuse_gets_its_reason(release: Path) -> None:
    with fettle.load(release) as loaded:
        good, bad = loaded.predict([png(1), b"no image"])
    assert good.error is None
    assert bad.label is None
    assert bad.top == ()
    assert str(bad.error).startswith("the image cannot be read: ")


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((4, 4, 7), np.uint8), r"image 0 has the shape of no image: got \[4, 4, 7\]"),
        (np.zeros((4, 0, 3), np.uint8), r"image 0 has the shape of no image: got \[4, 0, 3\]"),
        (np.full((4, 4, 3), 2.5), "image 0 has values that are no brightness: got 2.5 to 2.5"),
        (np.full((4, 4, 3), np.nan), "image 0 has values that are no brightness: got nan to nan"),
        (np.zeros((4, 4, 3), np.int64), "image 0 has values of a type that no image has: got int"),
        (None, "image 0 is no image: got NoneType"),
        (Path("gone.png"), "image 0 cannot be read: got 'gone.png': No such file or directory"),
    ],
)
def test_what_is_no_image_is_refused_by_its_place(release: Path, image: object, text: str) -> None:
    with fettle.load(release) as loaded, pytest.raises(DataError, match=text):
        loaded.predict([image])


def test_a_release_is_found_by_its_folder_its_project_and_what_made_it(
    release: Path, tmp_path: Path
) -> None:
    made = CompressedRelease(release, True, (), tmp_path, {})
    assert fettle.load(made).digest == fettle.load(str(release)).digest
    assert repr(fettle.load(release)).startswith("<release tiny ")
    with pytest.raises(ProjectError, match=r"is no release: got no release\.json in it"):
        fettle.load(tmp_path)
    with pytest.raises(ProjectError, match="is no release: got no such folder"):
        fettle.load(tmp_path / "gone")
    (tmp_path / "params.yaml").touch()
    with pytest.raises(ProjectError, match="run `fettle run` first"):
        fettle.load(tmp_path)


def test_a_changed_release_is_not_loaded(release: Path, tmp_path: Path) -> None:
    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(release, changed)
    (changed / "labels.json").write_text('["x", "y", "z"]')
    with pytest.raises(TamperedError, match=r"labels\.json of the release is changed"):
        fettle.load(changed)


def test_its_process_ends_with_it_and_a_closed_one_says_so(release: Path) -> None:
    loaded = fettle.load(release)
    loaded.predict(png(1))
    process = loaded._worker._process
    assert process is not None
    assert process.poll() is None
    del loaded
    gc.collect()
    assert process.poll() is not None
    closed = fettle.load(release)
    closed.close()
    with pytest.raises(UserError, match="the release is closed"):
        closed.predict(png(1))


def test_a_release_is_judged_on_a_folder_and_on_pairs_alike(release: Path, tmp_path: Path) -> None:
    with fettle.load(release) as loaded:
        labels = [str(answer.label) for answer in loaded.predict([png(s) for s in range(8)])]
        wrong = next(label for label in loaded.labels if label != labels[0])
        labels[0] = wrong
        for index, label in enumerate(labels):
            (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / label / f"{index}.png").write_bytes(png(index))
        of_pairs = fettle.evaluate(loaded, [(png(s), label) for s, label in enumerate(labels)])
        assert loaded.predict(png(1))  # who was given is not closed
    of_folder = fettle.evaluate(release, tmp_path / "photos")
    assert of_pairs == of_folder
    assert of_folder.accuracy.value == pytest.approx(7 / 8)
    assert of_folder.accuracy.n == of_folder.n == 8
    assert of_folder.recall[wrong].n == labels.count(wrong)


def test_an_image_without_an_answer_counts_as_wrong(release: Path) -> None:
    with fettle.load(release) as loaded:
        label = str(loaded.predict(png(0))[0].label)
        judged = fettle.evaluate(loaded, ([png(0), b"no image"], [label, label]))
    assert judged.accuracy.value == 0.5
    ((name, reason),) = judged.failed
    assert name == "image 1 of data"
    assert reason.startswith("the image cannot be read: ")


def test_a_label_that_is_no_class_is_refused_before_any_answer(release: Path) -> None:
    with pytest.raises(DataError, match="image 0 of data has a label that is no class") as caught:
        fettle.evaluate(release, [(png(0), "not there")])
    assert "its classes are" in str(caught.value)
