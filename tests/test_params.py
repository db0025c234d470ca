"""Params: every problem at once, with line, value and nearest name; rules between sections."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from params_file import ROOT, edit, line_of

from fettle import params
from fettle.errors import OurFault, ParamsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def test_the_repository_s_own_params_are_valid() -> None:
    assert params.load(ROOT / "params.yaml").release.name == "digits"


def test_every_example_is_valid() -> None:
    found = sorted((ROOT / "examples").glob("*.yaml"))
    assert len(found) >= 2
    for path in found:
        params.load(path)


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
        "did you mean 'digits'? (files of fettle/data/sources: " in text
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


def test_an_objective_on_a_target_that_is_not_listed_is_refused(file: Path) -> None:
    with pytest.raises(ParamsError, match="'x86_none' is not among targets"):
        params.load(file, ["compress.objective.target=x86_none"])


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
            "compress.constraints={size_bytes_max: 0}",
            "compress.constraints.size_bytes_max: Input should be greater than or equal to 1 "
            "(value 0)",
        ),
        (
            "compress.constraints={size_max: 5}",
            "unknown key 'compress.constraints.size_max' (value 5), did you mean 'size_bytes_max'?",
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
    assert (goal.budget.confidence, goal.constraints.size_bytes_max) == (0.95, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "validate.class_imbalance_max=.inf",
            "validate.class_imbalance_max: .inf is no finite number (for a wide limit write a "
            "large one, 1e9)",
        ),
        ("compress.search.wall_clock_max_s=.inf", "compress.search.wall_clock_max_s: .inf is no"),
        ("finetune.learning_rate=.nan", "finetune.learning_rate: .nan is no finite number"),
        ("promote.bake_s=.inf", "promote.bake_s: .inf is no finite number"),
        (
            "compress.recipe=[{use: prune, keep_fraction: -.inf}]",
            "compress.recipe[0].keep_fraction: -.inf is no finite number",
        ),
        ("validate.labels=[2024-01-02]", "validate.labels[0]: 2024-01-02 is read as a date; put"),
        ("validate.labels=[!!binary aGk=]", "validate.labels[0]: a YAML tag (bytes) is no plain"),
        ('validate.labels=["a\\0"]', "validate.labels[0]: the text holds the control character"),
        ("validate.labels=[1, x]", "validate.labels[0]: Input should be a valid string; put it in"),
        (
            "validate.data_docs=yes",
            "Input should be a valid boolean; YAML 1.2 writes true or false",
        ),
        ("ingest.options={1: x}", "ingest.options.1: a key that is no text; put it in quotes"),
        ("evaluate.rounds=99999999999999999999", "evaluate.rounds: the number is too large"),
        ("evaluate.threads=100000", "evaluate.threads: Input should be less than or equal to 1024"),
        ("seed=1e3", "seed: Input should be a valid integer (value 1000.0)"),
        ("targets=[x86_ort_fp32, x86_ort_fp32]", "targets[1]: 'x86_ort_fp32' is listed twice"),
        (
            "release.name=digits-",
            "release.name: BentoML takes 1 to 63 lower-case letters a-z, digits, - and _, a letter "
            'first, a letter or digit last (value "digits-")',
        ),
        ("release.name=Ziffern", "release.name: BentoML takes 1 to 63 lower-case letters"),
        ("release.service=../x", "release.service: String should match pattern"),
        (
            "compress.recipe=[{use: static_int8}]",
            "compress.recipe[0].use: unknown name 'static_int8' (files of "
            "fettle/compress/techniques: depth, distil, low_rank, prune, qat, resolution, sparse, "
            "student); int8 and other precisions are the targets' (params.yaml: targets), not a "
            "step's",
        ),
    ],
)
def test_a_value_that_would_fail_later_is_refused_now(
    file: Path, override: str, message: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        params.load(file, [override])
    text = str(caught.value)
    assert text.startswith("params.yaml has 1 problem\n")
    assert message in text
    assert "Nothing was run." in text


def test_a_value_that_json_cannot_hold_hides_no_other_problem(file: Path) -> None:
    edit(file, "class_imbalance_max: 3.0", "class_imbalance_max: .inf")
    edit(file, "calibrate: auto", "calibrate: minmx")
    with pytest.raises(ParamsError) as caught:
        params.load(file)
    text = str(caught.value)
    assert text.startswith("params.yaml has 2 problems\n")
    assert f"params.yaml:{line_of(file, '.inf')}: validate.class_imbalance_max: .inf" in text
    assert f"params.yaml:{line_of(file, 'minmx')}: export.calibrate: " in text


def test_a_family_that_trains_nothing_takes_no_recipe(file: Path) -> None:
    family = ["finetune.family=onnx_file", "finetune.options={path: m.onnx}"]
    with pytest.raises(ParamsError) as caught:
        params.load(file, [*family, "compress.recipe=[{use: prune}, {use: distil}]"])
    assert (
        "compress.recipe: an ONNX file cannot be pruned or trained here: got compress.recipe with "
        "prune, distil; family 'onnx_file' has no module to act on: recipe must be []. Set "
        "compress.recipe to []; int8 targets are still quantized"
    ) in str(caught.value)
    assert params.load(file, [*family, "compress.recipe=[]"]).compress.recipe == []
