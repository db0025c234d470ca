"""Every quantizer in fettle/quantize/quantizers keeps the same contract."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from fettle.hardware.precisions import PRECISIONS

FOLDER = Path(importlib.import_module("fettle.quantize.quantizers").__path__[0])
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def test_the_quantizers_are_these() -> None:
    assert NAMES == [
        "calibrated_int8",
        "dynamic_int8",
        "weight_fp16",
        "weight_int4",
        "weight_int8",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_quantizer_writes_one_onnx_file_from_another(name: str) -> None:
    module = importlib.import_module(f"fettle.quantize.quantizers.{name}")
    assert list(inspect.signature(module.apply).parameters)[:2] == ["model", "out"]


@pytest.mark.parametrize("name", NAMES)
def test_a_quantizer_imports_no_heavy_library_at_the_top(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    heavy = {"torch", "torch_pruning", "onnx", "onnxruntime", "openvino", "sklearn", "scipy"}
    found = set()
    for node in tree.body:  # the top level only: not inside functions, nor under TYPE_CHECKING
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    assert not found & heavy


def test_every_precision_that_is_quantized_names_a_quantizer_that_exists() -> None:
    named = [precision.quantizer for precision in PRECISIONS if precision.quantizer]
    assert sorted(named) == NAMES
