"""The text of params.yaml and of --set: encodings, broken YAML, broken keys, lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from params_file import ROOT, edit

from fettle import params
from fettle.errors import ParamsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def test_a_number_such_as_2e_3_is_read_as_a_number(file: Path) -> None:
    edit(file, "weight_decay:", "weight_decay: 3e-4 #")
    assert params.load(file).finetune.weight_decay == 3e-4


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


def test_an_anchor_within_its_own_value_is_refused(file: Path) -> None:
    with pytest.raises(ParamsError, match="it holds itself"):
        params.load(file, ["compress.recipe=&all [*all]"])
