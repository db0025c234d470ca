"""Operator support: a model is compiled for each target, and what it lacks is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import tiny_onnx
from onnx import TensorProto, helper

from fettle.errors import ModelError
from fettle.hardware import operator_support
from fettle.hardware.operator_support import OperatorSupport
from fettle.hardware.runtimes import Placement, ort

PLAIN = "x86_ort_fp32"


def with_operator(folder: Path, operator: str, domain: str = "") -> Path:
    """Write a model of one operator; "" is ONNX's own domain."""
    sizes = [None, 1, 8, 8]
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in ("x", "y")
    )
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "one", [given], [made])
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def test_a_target_that_compiles_it_takes_it(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    assert operator_support.check(model, [PLAIN]) == [OperatorSupport(PLAIN, "takes it")]


def test_an_operator_that_a_runtime_does_not_know_is_named(tmp_path: Path) -> None:
    (found,) = operator_support.check(with_operator(tmp_path, "Frobnicate", "mine"), [PLAIN])
    assert (found.status, found.lacking) == ("lacks", ("Frobnicate",))
    assert found.reason.startswith("ONNX Runtime cannot load one.onnx: got ")


def test_an_operator_that_would_fall_back_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = Placement(share=0.5, fallback=("Relu",))
    monkeypatch.setattr(ort, "placement", lambda _entry: placed, raising=False)
    (found,) = operator_support.check(with_operator(tmp_path, "Relu"), [PLAIN])
    assert found == OperatorSupport(PLAIN, "lacks", ("Relu",), "it would run them on the CPU")


def test_a_missing_toolchain_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path / "none"))
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    assert operator_support.check(model, ["arm64_ort_int8"]) == [
        OperatorSupport(
            "arm64_ort_int8", "unavailable", (), "run `fettle targets install ort_arm64`"
        )
    ]


def test_a_whole_word_names_an_operator_and_our_advice_does_not() -> None:
    said = "no kernel for Conv_7 and Erf(13). Fix: replace Gemm."
    assert operator_support.named(said, ["Conv", "Erf", "Gemm"]) == ("Erf",)


@pytest.mark.parametrize("given", ["nothing", "text", "vector"])
def test_what_is_no_model_of_images_is_told(tmp_path: Path, given: str) -> None:
    path, told = tmp_path / "given.onnx", "cannot be read as an ONNX file: got no such file"
    if given == "text":
        path.write_text("no model")
        told = "cannot be read as an ONNX file: got DecodeError"
    elif given == "vector":
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 9])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 9])],
        )
        onnx.save(helper.make_model(graph), str(path))
        told = "does not take images: got an input of shape [1, 9]"
    with pytest.raises(ModelError, match=told.replace("[", r"\[")):
        operator_support.check(path, [PLAIN])


def test_the_command_shows_every_target(tmp_path: Path) -> None:
    model = with_operator(tmp_path, "Frobnicate", "mine")
    command = [sys.executable, "-m", "fettle.cli.main", "targets", "--check", str(model), "--json"]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "FETTLE_TOOLCHAINS": str(tmp_path / "none")}
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {row["target"]: row for row in json.loads(done.stdout)}
    assert rows[PLAIN]["lacking"] == ["Frobnicate"]
    assert rows["arm64_ort_fp32"]["status"] == "unavailable"
