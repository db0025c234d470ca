"""A trained ONNX file goes through the compress stage as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from compress_stage import COUNTS, DISTIL, PRUNE, ROOT, SIDE, make, make_inputs, seal
from safetensors.numpy import load_file as load_arrays

from fettle.errors import ParamsError
from fettle.stage_contract import Inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("project"), epochs=8)


@pytest.fixture(scope="module")
def onnx_inputs(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("onnx") / "finetune"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((inputs["finetune"] / "model.onnx").read_bytes())
    seal(folder, trains=False)
    return replace(inputs, folders={**inputs.folders, "finetune": folder})


def test_an_onnx_file_goes_through_unchanged(onnx_inputs: Inputs, tmp_path: Path) -> None:
    found = make(onnx_inputs, tmp_path / "out", "compress.recipe=[]")
    assert sorted(found.bytes()) == ["layers.json", "model.onnx", "reference.safetensors"]
    given = (onnx_inputs["finetune"] / "model.onnx").read_bytes()
    assert (found.out / "model.onnx").read_bytes() == given
    assert found.json("layers.json") == []
    assert found.outputs.facts.parity.max_abs == 0
    assert found.outputs.measures["accuracy"].value > 0.9
    assert found.outputs.measures["params_after"].value > 1000
    reference = load_arrays(found.out / "reference.safetensors")
    assert reference["logits"].shape == (COUNTS["validation"], 3)


@pytest.mark.parametrize("recipe", [[PRUNE], [PRUNE, DISTIL]])
def test_an_onnx_file_with_a_recipe_is_refused(
    onnx_inputs: Inputs, tmp_path: Path, recipe: Sequence[str]
) -> None:
    family = ("finetune.family=onnx_file", "finetune.options={path: m.onnx}")
    with pytest.raises(ParamsError) as caught:
        make(onnx_inputs, tmp_path / "out", f"compress.recipe=[{', '.join(recipe)}]", *family)
    names = "prune" if len(recipe) == 1 else "prune, distil"
    assert (
        f"an ONNX file cannot be pruned or trained here: got compress.recipe with {names}; family "
        "'onnx_file' has no module to act on: recipe must be []. Set compress.recipe to []; "
        "int8 targets are still quantized"
    ) in str(caught.value)


def test_an_onnx_file_goes_through_without_torch(onnx_inputs: Inputs, tmp_path: Path) -> None:
    folders = {name: str(path) for name, path in onnx_inputs.folders.items()}
    script = f"""
import sys
from pathlib import Path
from fettle import params
from fettle.recorder import NullRecorder
from stages import compress
from fettle.stage_contract import Inputs

folders = {{name: Path(path) for name, path in {folders!r}.items()}}
inputs = Inputs(folders, Path("."), Path({str(tmp_path / "scratch")!r}))
out = Path({str(tmp_path / "out")!r})
out.mkdir()
preprocess = "preprocess={{size_px: {SIDE}, channels: 1, mean: 0.5, std: 0.5}}"
settings = params.load(Path("params.yaml"), [preprocess, "compress.recipe=[]"])
compress.run(params.scope(settings, compress.SECTIONS), inputs, out, NullRecorder())
assert not {{"torch", "torch_pruning"}} & set(sys.modules), "torch was imported"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "reference.safetensors").is_file()
