"""Values of params.yaml that parse and would fail late, or mean nothing: refused by their line."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import tiny_frames

from fettle import params
from fettle.data.checks import balance
from fettle.errors import ParamsError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(ParamsError) as caught:
        params.load(file, overrides)
    return str(caught.value)


SECTION = "a section is wanted, with keys below it (value null)"
REFUSED = [
    ("validate=null", f"validate: {SECTION}"),
    ("compress.constraints=null", f"compress.constraints: {SECTION}"),
    ("finetune.options=null", f"finetune.options: {SECTION}"),
    ("targets=x86_ort_fp32", "targets: a list is wanted, such as [a, b] (value"),
    ("verdict.limits=null", "verdict.limits: a list is wanted, such as [a, b] (value null)"),
    (
        "validate.size_px_min=9000",
        "validate: no image has a side of at least 9000 px (size_px_min) and at most 8192 px "
        "(size_px_max)",
    ),
    ("validate.labels=[cat, dog, cat]", "validate.labels: 'cat' stands there twice"),
    ("validate.labels=['', dog]", "validate.labels: a name is empty"),
    ("validate.labels=[]", "validate.labels: it names no class; null takes those of the data"),
    (
        "verdict.limits=[{metric: accuracy}]",
        "verdict.limits[0]: a limit of accuracy needs min or max",
    ),
    (
        "verdict.limits=[{metric: accuracy, min: 0.9, max: 0.1}]",
        "verdict.limits[0]: no accuracy is at least 0.9 and at most 0.1",
    ),
    ("preprocess.std=1e-300", "preprocess.std: either auto, a number 0.001 to 1, or a list of"),
    ("validate.class_imbalance_max=0.5", "validate.class_imbalance_max: Input should be greater"),
]


@pytest.mark.parametrize(("override", "said"), REFUSED)
def test_a_value_that_means_nothing_is_refused(file: Path, override: str, said: str) -> None:
    text = refusal(file, override)
    assert text.startswith("params.yaml has 1 problem\n")
    assert f": {said}" in text


def test_no_limit_on_the_imbalance_is_written_null(file: Path) -> None:
    text = file.read_text()
    file.write_text(text.replace("class_imbalance_max: 3.0", "class_imbalance_max: null", 1))
    assert params.load(file).validate_.class_imbalance_max is None


@pytest.mark.parametrize(("most", "names"), [(None, []), (3.0, ["class_imbalance"])])
def test_without_a_limit_on_the_imbalance_there_is_no_rule(
    most: float | None, names: list[str]
) -> None:
    limits = tiny_frames.LIMITS
    rules = balance.rules(dataclasses.replace(limits, class_imbalance_max=most))
    assert [rule.name for rule in rules if rule.name == "class_imbalance"] == names


EMPTY = [("", "nothing"), ("# a comment\n", "nothing"), ("- a\n", "a list"), ("seed\n", "text")]


@pytest.mark.parametrize(("content", "got"), EMPTY)
def test_a_file_without_sections_says_what_it_holds(file: Path, content: str, got: str) -> None:
    file.write_text(content)
    text = refusal(file)
    assert text.startswith(f"params.yaml holds no mapping: got {got}")
    assert "start from the params.yaml that `fettle init` makes" in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed.x=1", "nothing lies below it"),
        ("targets.9.x=1", "there is a list of 4"),
        ("evaluate.roundz.x=1", "the keys there are ['threads', 'batch_images',"),
    ],
)
def test_a_set_of_no_key_says_what_is_there(file: Path, override: str, said: str) -> None:
    assert said in refusal(file, override)
