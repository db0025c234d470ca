from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fettle import params
from fettle.errors import OurFault, ParamsError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))


def line_of(file: Path, text: str) -> int:
    return 1 + next(i for i, line in enumerate(file.read_text().splitlines()) if text in line)


def test_the_repository_s_own_params_are_valid() -> None:
    assert params.load(ROOT / "params.yaml").release.name == "digits"


def test_every_example_is_valid() -> None:
    found = sorted((ROOT / "examples").glob("*.yaml"))
    assert len(found) >= 2
    for path in found:
        params.load(path)


def test_a_number_such_as_2e_3_is_read_as_a_number(file: Path) -> None:
    edit(file, "weight_decay:", "weight_decay: 3e-4 #")
    assert params.load(file).finetune.weight_decay == 3e-4


def test_all_errors_come_at_once_with_line_value_and_nearest_name(file: Path) -> None:
    edit(file, "epochs_max:", "epoch_max:")
    edit(file, "calibrate: auto", "calibrate: minmx")
    edit(file, "source: digits", "source: digit")
    with pytest.raises(ParamsError) as caught:
        params.load(file)
    text = str(caught.value)
    assert text.startswith("params.yaml has 4 problems\n")
    value = next(
        part.split("#")[0].split(":")[1].strip()
        for part in file.read_text().splitlines()
        if "epoch_max" in part
    )
    assert (
        f"  params.yaml:{line_of(file, 'epoch_max')}: unknown key 'finetune.epoch_max' "
        f"(value {value}), did you mean 'epochs_max'?\n" in text
    )
    assert "missing key 'finetune.epochs_max'" in text
    assert f"  params.yaml:{line_of(file, 'minmx')}: export.calibrate: " in text
    assert '(value "minmx")' in text
    assert (
        f"  params.yaml:{line_of(file, 'source:')}: ingest.source: unknown name 'digit', "
        "did you mean 'digits'? (files of fettle/sources: " in text
    )
    assert text.endswith("Nothing was run. Fix: mend params.yaml (or the --set) and run again.")


def test_a_plug_in_s_own_options_are_checked_too(file: Path) -> None:
    file.write_text((ROOT / "examples" / "fashion_mnist.yaml").read_text())
    edit(file, "{use: prune, ", "{use: prune, kep_fraction: 0.5, ")
    with pytest.raises(ParamsError) as caught:
        params.load(file)
    assert (
        f"params.yaml:{line_of(file, 'kep_fraction')}: unknown key "
        "'compress.recipe[0].kep_fraction' (value 0.5), did you mean 'keep_fraction'?"
    ) in str(caught.value)


def test_broken_yaml_names_the_line(file: Path) -> None:
    file.write_text("seed: 1\ningest: [\n")
    with pytest.raises(ParamsError, match=r"params.yaml, line 3: not valid YAML"):
        params.load(file)


def test_a_set_reaches_into_lists(file: Path) -> None:
    fashion = ROOT / "examples" / "fashion_mnist.yaml"
    loaded = params.load(fashion, ["compress.recipe.0.keep_fraction=0.5", "seed=3"])
    assert (loaded.compress.recipe[0]["keep_fraction"], loaded.seed) == (0.5, 3)


def test_a_set_reaches_into_a_section_that_the_file_leaves_to_its_defaults(file: Path) -> None:
    fashion = ROOT / "examples" / "fashion_mnist.yaml"
    loaded = params.load(fashion, ["compress.search.evaluations_max=3"])
    assert loaded.compress.search.evaluations_max == 3
    assert loaded.compress.search.trial_epochs == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compress.serch.evaluations_max=3", "no 'serch' below 'compress': got 'serch'"),
        ("seed", "--set 'seed' is not an assignment"),
        ("finetun.epochs_max=3", "no 'finetun' below 'the top': got 'finetun', did you mean"),
        ("targets.9=x", "no '9' below 'targets'"),
        ("seed.x=1", "no 'x' below 'seed'"),
    ],
)
def test_a_set_that_names_nothing_is_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params.load(file, [override])
    assert message in str(caught.value)


def test_an_objective_on_a_target_that_is_not_listed_is_refused(file: Path) -> None:
    with pytest.raises(ParamsError, match="'x86_none' is not among targets"):
        params.load(file, ["compress.objective.on=x86_none"])


def test_splits_must_sum_to_one(file: Path) -> None:
    with pytest.raises(ParamsError, match=r"must be 1, they are 1\.1"):
        params.load(file, ["ingest.split.train=0.5"])


def test_a_stage_cannot_read_what_it_did_not_declare() -> None:
    scoped = params.scope(params.load(ROOT / "params.yaml"), ["seed", "compress.recipe"])
    assert scoped.compress.recipe
    with pytest.raises(OurFault, match=r"params\.compress\.budget without declaring it"):
        _ = scoped.compress.budget
    with pytest.raises(OurFault, match=r"params\.finetune without declaring it"):
        _ = scoped.finetune


def test_checking_params_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from fettle import params; "
        f"params.load(Path({str(ROOT / 'params.yaml')!r})); "
        "heavy = {'torch', 'prefect', 'mlflow', 'onnxruntime', 'sklearn', 'openvino', 'pandas', "
        "'great_expectations', 'bentoml', 'dvc'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "compress.recipe=automatic",
            "compress.recipe: either auto, or a list of steps such as [{use: prune}, {use: distil}]"
            ' (value "automatic")',
        ),
        ("compress.recipe=[prune]", "compress.recipe[0] needs `use: TECHNIQUE`"),
        (
            "compress.recipe=[{use: sparse}]",
            "compress.recipe[0].use: 'sparse' does not bring latency_p50_ms down: zeros in a dense "
            "weight are multiplied like any number: no runtime here is faster for them, only the "
            "compressed file is smaller. Take it out, or minimise size_bytes",
        ),
        (
            "compress.objective.minimise=latency",
            "compress.objective.minimise: Input should be 'latency_p50_ms', 'size_bytes', 'macs' "
            "or 'energy_j' (value \"latency\")",
        ),
        (
            "compress.budget.confidence=1",
            "compress.budget.confidence: Input should be less than 1 (value 1)",
        ),
        (
            "compress.also={size_bytes_max: 0}",
            "compress.also.size_bytes_max: Input should be greater than or equal to 1 (value 0)",
        ),
        (
            "compress.also={size_max: 5}",
            "unknown key 'compress.also.size_max' (value 5), did you mean 'size_bytes_max'?",
        ),
        (
            "compress.search={evaluations_max: 0}",
            "compress.search.evaluations_max: Input should be greater than or equal to 1 (value 0)",
        ),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused(file: Path, override: str, text: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params.load(file, [override])
    assert text in str(caught.value)


def test_a_goal_needs_no_recipe(file: Path) -> None:
    goal = params.load(file, ["compress.recipe=auto"]).compress
    assert goal.recipe == "auto"
    assert (goal.budget.confidence, goal.also.size_bytes_max) == (0.95, None)
