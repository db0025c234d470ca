"""`fettle run --first`: a linear probe is served first, and what the rest costs is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from fettle import manifest, params
from fettle.cli import first_release
from fettle.errors import ParamsError
from fettle.facts.answer_parity import AnswerParity
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.measure import Measure
from fettle.project import Project

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "file", ["params.yaml", "examples/photos.yaml", "examples/fashion_mnist.yaml"]
)
def test_a_first_release_can_be_asked_of_every_params_file(file: str) -> None:
    first = params.load(ROOT / file, first_release.OVERRIDES)
    assert first.finetune.epochs_max == 0
    assert first.finetune.linear_probe
    assert first.compress.recipe == []
    assert first.targets == ["x86_ort_fp32", "x86_ort_int8"]


def test_no_epochs_and_no_probe_is_refused() -> None:
    with pytest.raises(ParamsError) as caught:
        params.load(ROOT / "params.yaml", ["finetune.epochs_max=0"])
    assert "epochs_max: 0 trains nothing: set linear_probe: true, or give epochs" in str(
        caught.value
    )


def test_the_outlook_says_what_the_rest_costs_and_what_it_bought_elsewhere(tmp_path: Path) -> None:
    facts = FinetuneFacts(
        family="efficientnet_lite",
        options={"variant": 0, "pretrained": True},
        classes=("hat", "shoes"),
        channels=3,
        size_px=64,
        trains=True,
        epochs=0,
        params=3_400_000,
        parity=AnswerParity(cosine=1.0, max_abs=0.0, relative=0.0, top1=1.0),
        notes=(),
    )
    splits = {"train": 1500, "validation": 100, "test": 100}
    for name, sealed in (
        ("finetune", facts),
        ("ingest", manifest.UnreadFacts(ingest(splits))),
    ):
        folder = tmp_path / "artifacts" / name
        folder.mkdir(parents=True)
        accuracy = {"accuracy": Measure(value=0.81, unit="1", n=200)}
        manifest.write(folder, name, inputs={}, measures=accuracy, facts=sealed)
    whole = params.load(ROOT / "examples" / "photos.yaml")
    assert first_release.outlook(Project(tmp_path, tmp_path), whole) == (
        "next     fettle run: 7 epochs of 3,000 images at 64 px, about 4 processor minutes by "
        "the committed cost table, then the search, 900 s at most. The linear probe has 81.0% of "
        "validation; on 3,068 photos of clothes (64 px) fine-tuning gained 10 points over it"
    )


def ingest(splits: dict[str, int]) -> dict[str, object]:
    return {
        "source": "image_folder",
        "digest": "0" * 64,
        "rows": 3400,
        "unreadable": 0,
        "groups": 0,
        "classes": {"hat": splits, "shoes": splits},
        "splits": dict.fromkeys(splits, "drawn"),
    }
