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
    ("data", "got"),
    [
        ("# Größe\nseed: 1\n".encode("cp1252"), "the byte 0xf6 in line 1"),
        ("seed: 1\n# é\n".encode("latin-1"), "the byte 0xe9 in line 2"),
        ("seed: 1\n".encode("utf-16"), "UTF-16"),
        ("seed: 1\n".encode("utf-16-le"), "UTF-16"),
        ("seed: 1\n".encode("utf-32"), "UTF-32"),
    ],
)
def test_a_file_in_another_encoding_is_told_to_be_utf8(file: Path, data: bytes, got: str) -> None:
    file.write_bytes(data)
    with pytest.raises(ParamsError) as caught:
        params.load(file)
    assert str(caught.value) == (
        f"params.yaml is not in UTF-8: got {got}; a params file is UTF-8 text. Fix: save "
        "params.yaml with the encoding UTF-8, also where an umlaut stands in a comment."
    )


def test_a_byte_order_mark_and_windows_line_ends_are_read(file: Path) -> None:
    text = file.read_text().replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert params.load(file).release.name == "digits"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\n\x0c\n", "line 2: not valid YAML: got the control character 0x0c"),
        ("seed: 1\nx: a\x00b\n", "line 2: not valid YAML: got the control character 0x00"),
        ("seed: 2024-13-45\n", "not valid YAML: got month must be in 1..12"),
        ("seed: " + "9" * 5000 + "\n", "not valid YAML: got Exceeds the limit"),
        ("seed: " + "[" * 5000 + "\n", "not valid YAML: got brackets nested too deep"),
        ("seed: 1\nseed: 2\n", 'line 2: not valid YAML: got found duplicate key "seed"'),
    ],
)
def test_text_that_is_no_yaml_is_refused_whatever_the_parser_says(
    file: Path, text: str, message: str
) -> None:
    file.write_text(text)
    with pytest.raises(ParamsError) as caught:
        params.load(file)
    assert message in str(caught.value)


def test_a_params_file_that_is_a_folder_or_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="cannot be read: got Is a directory"):
        params.load(tmp_path)
    with pytest.raises(ParamsError, match=r"no params file at .*/no\.yaml"):
        params.load(tmp_path / "no.yaml")
    with pytest.raises(ParamsError, match="cannot be read: got File name too long"):
        params.load(tmp_path / f"{'x' * 300}.yaml")


@pytest.mark.parametrize(
    ("override", "got"),
    [
        ("compress.recipe=[{use: prune", "expected ',' or '}', but got '<stream end>'"),
        ("release.name='digits", "found unexpected end of stream"),
        ("seed=1\x07", "the control character 0x07"),
        ("seed=*nobody", "found undefined alias 'nobody'"),
        ("seed=2024-13-45", "month must be in 1..12"),
    ],
)
def test_a_set_that_is_no_yaml_is_quoted(file: Path, override: str, got: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params.load(file, [override])
    assert str(caught.value) == (
        f"--set '{override}': not valid YAML: got {got}. Fix: put the whole assignment in single "
        "quotes, e.g. --set 'finetune.augment={shift_fraction: 0.1}'."
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("=5", "--set '=5' is not an assignment"),
        (".seed=5", "no '' below 'the top'"),
        ("targets.²=x", "no '²' below 'targets'"),
        ("targets.-1=x", "no '-1' below 'targets'"),
        ("sed=5", "unknown key 'sed' (value 5), did you mean 'seed'?"),
    ],
)
def test_a_set_with_a_broken_key_is_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params.load(file, [override])
    assert message in str(caught.value)


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
            "fettle/compress/techniques: depth, distil, low_rank, prune, qat, sparse, student); "
            "int8 and other precisions are the targets' (params.yaml: targets), not a step's",
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


def test_an_anchor_within_its_own_value_is_refused(file: Path) -> None:
    with pytest.raises(ParamsError, match="it holds itself"):
        params.load(file, ["compress.recipe=&all [*all]"])


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
