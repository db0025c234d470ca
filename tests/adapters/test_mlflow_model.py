"""The registry holds a model that answers as the release's server does, by the release's code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tiny_release import TinyRelease

from fettle.adapters import mlflow_aliases
from fettle.adapters.mlflow_tracking import Tracker
from fettle.data import image_table
from fettle.serving import image_request, release_bundle

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
TAGS = {"release_digest": "d1", "bento_tag": "tiny:d1", "gate": "passed"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinyRelease:
    release = TinyRelease(tmp_path_factory.mktemp("made"))
    release.package()
    return release


@pytest.fixture(scope="module")
def tracker(made: TinyRelease) -> Tracker:
    root = made.project.root
    tracker = Tracker(f"sqlite:///{root / 'mlflow.db'}", root / "mlflow-artifacts", "tiny")
    tracker.start("tiny", {}, {})
    tracker.register("tiny", made.release, TAGS, challenger=True)
    mlflow_aliases.move(tracker._client, "tiny", "champion", "1")
    return tracker


@pytest.fixture
def model(made: TinyRelease, tracker: Tracker) -> Iterator[Any]:  # Any: MLflow ships no types
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{made.project.root / 'mlflow.db'}")
    yield mlflow.pyfunc.load_model("models:/tiny@champion")
    mlflow.set_tracking_uri(None)


def images_of_the_test_split(made: TinyRelease) -> list[bytes]:
    table = pq.read_table(made.project.folder("ingest") / image_table.IMAGES).to_pylist()
    return [row["bytes"] for row in table if row["split"] == "test"]


def served(made: TinyRelease, images: list[bytes]) -> list[list[dict[str, object]]]:
    """What the server's code answers, an image at a time."""
    bundle = release_bundle.load(made.release)
    rows = []
    for encoded in images:
        pixels = image_request.from_files([encoded], bundle.preprocess)
        best = bundle.rank(pixels, most=5)[0]
        pairs = zip(best.classes, best.probabilities, strict=True)
        rows.append([{"label": bundle.labels[at], "probability": chance} for at, chance in pairs])
    return rows


def test_the_champion_answers_every_test_image_as_the_server_does(
    made: TinyRelease, model: Any
) -> None:
    images = images_of_the_test_split(made)
    expected = served(made, images)
    answers = model.predict(images)
    assert len(images) == 90
    assert answers["top"].tolist() == expected
    assert answers["label"].tolist() == [top[0]["label"] for top in expected]
    assert answers["probability"].tolist() == [top[0]["probability"] for top in expected]
    assert len(set(answers["label"])) == 3
    frame = pd.DataFrame({"photo": images[:3]})
    assert model.predict(frame)["top"].tolist() == expected[:3]


def test_an_image_that_cannot_be_read_is_named_and_costs_no_other(
    made: TinyRelease, model: Any
) -> None:
    good = images_of_the_test_split(made)[0]
    answers = model.predict([good, b"no image", good])
    assert answers["error"][1].startswith("the image cannot be read: ")
    assert answers["label"].isna().tolist() == [False, True, False]
    assert answers["top"][0] == answers["top"][2] == served(made, [good])[0]


def test_it_is_the_release_s_own_code_whatever_fettle_is_imported(
    made: TinyRelease, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    image = images_of_the_test_split(made)[0]
    expected = served(made, [image])
    monkeypatch.setattr(release_bundle, "DECIMALS", 1)
    monkeypatch.setattr(image_request, "IMAGES_MAX", 0)
    mlflow.set_tracking_uri(f"sqlite:///{made.project.root / 'mlflow.db'}")
    try:
        model = mlflow.pyfunc.load_model("models:/tiny@challenger")
        assert model.predict([image])["top"].tolist() == expected
    finally:
        mlflow.set_tracking_uri(None)
    import fettle.serving.release_bundle as imported

    assert imported is release_bundle


def test_it_has_a_signature_an_example_the_release_s_packages_and_its_bento(
    made: TinyRelease, tracker: Tracker, model: Any
) -> None:
    version = tracker._client.get_model_version_by_alias("tiny", "champion")
    assert (version.tags["bento_tag"], version.tags["release_digest"]) == ("tiny:d1", "d1")
    assert [column.type.name for column in model.metadata.signature.inputs] == ["binary"]
    named = [column.name for column in model.metadata.signature.outputs]
    assert named == ["label", "probability", "top", "error"]
    assert model.predict(model.input_example)["error"].isna().all()
    place = next((made.project.root / "mlflow-artifacts").rglob("MLmodel")).parent
    locked = (made.release / "requirements.txt").read_text().splitlines()
    assert set(locked) <= set((place / "requirements.txt").read_text().splitlines())


def test_the_copy_is_made_once_a_release(made: TinyRelease, tracker: Tracker) -> None:
    before = list((made.project.root / "mlflow-artifacts").rglob("MLmodel"))
    assert tracker.register("tiny", made.release, TAGS, challenger=False) == "1"
    assert list((made.project.root / "mlflow-artifacts").rglob("MLmodel")) == before
    assert len(before) == 1


def test_a_copy_whose_bytes_were_changed_is_not_loaded(made: TinyRelease, tracker: Tracker) -> None:
    import mlflow

    other = {**TAGS, "release_digest": "d2"}
    tracker.start("tiny", {}, {})
    number = tracker.register("tiny", made.release, other, challenger=False)
    run = made.project.root / "mlflow-artifacts" / tracker.parent_run
    (labels,) = run.rglob("labels.json")
    labels.write_text('["a", "b", "c"]')
    mlflow.set_tracking_uri(f"sqlite:///{made.project.root / 'mlflow.db'}")
    try:
        with pytest.raises(Exception, match=r"labels\.json of the release is changed"):
            mlflow.pyfunc.load_model(f"models:/tiny/{number}")
    finally:
        mlflow.set_tracking_uri(None)
