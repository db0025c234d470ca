"""Every runtime answers alike, takes the same calls, and can travel in a release by itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_onnx

from fettle import plugins
from fettle.errors import ModelError
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.isolated.toolchain import Toolchain
from fettle.hardware.runtimes import Availability, Runtime, Shape

NAMES = plugins.names("runtimes")
ISOLATED = [
    name for name in NAMES if hasattr(plugins.resolve("runtimes", name, where=""), "TOOLCHAIN")
]
IN_FLOAT16 = {"qnn"}  # Hexagon computes in float16 what is not int8
FIXED_POINT = {"hls4ml"}
ONE_BY_ONE = {"qnn"}  # a context binary has its batch fixed
BESIDE = [
    "hardware/ort_profiler",
    "hardware/openvino_profiler",
    *(
        f"hardware/isolated/{name}"
        for name in (
            "toolchain",
            "toolchain_environment",
            "isolated_session",
            "isolated_worker",
            "iree_devices",
            "node_packages",
            "host_requirements",
        )
    ),
]


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> ModuleType:
    found = plugins.resolve("runtimes", request.param, where="")
    if not found.available().ok:
        pytest.skip(f"needs {request.param}: {found.available().reason}")
    if getattr(found, "INT8_ONLY", False):
        pytest.skip(f"needs a runtime of float models, and {request.param} has int8 alone")
    if request.param in FIXED_POINT:
        pytest.skip(f"needs no float: {request.param} has none, see its own test")
    return found


def name_of(runtime: ModuleType) -> str:
    return runtime.__name__.rpartition(".")[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx.classifier(tmp_path / "given.onnx")


def test_all_runtimes_are_found() -> None:
    assert NAMES == [
        "hls4ml",
        "iree",
        "litert",
        "openvino",
        "ort",
        "ort_arm64",
        "ort_node",
        "ort_web",
        "qnn",
        "tensorrt",
        "vela",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_its_functions_take_the_contracts_arguments(name: str) -> None:
    module = plugins.resolve("runtimes", name, where="")
    wanted = {
        "available": [],
        "toolkit": [],
        "compile": ["model", "out", "bf16"],
        "open": ["entry", "threads"],
    }
    for function, arguments in wanted.items():
        assert list(inspect.signature(getattr(module, function)).parameters) == arguments
    threads = inspect.signature(module.open).parameters["threads"]
    assert threads.kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", NAMES)
def test_it_offers_all_that_the_protocol_names(name: str) -> None:
    module = plugins.resolve("runtimes", name, where="")
    asked = {k: f for k, f in vars(Runtime).items() if inspect.isfunction(f) and k[0] != "_"}
    assert set(asked) == {"available", "toolkit", "compile", "open"}
    for function, wanted in asked.items():
        _, *parameters = inspect.signature(wanted).parameters.values()  # without self
        given = inspect.signature(getattr(module, function)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in given] == [
            (p.name, p.kind, p.default) for p in parameters
        ]
    assert list(Runtime.__annotations__) == ["PACKAGES"]
    assert module.PACKAGES
    assert all(isinstance(package, str) for package in module.PACKAGES)


@pytest.mark.parametrize("name", ISOLATED)
def test_an_isolated_toolchain_has_a_lock_with_hashes_for_all_it_requires(name: str) -> None:
    module = plugins.resolve("runtimes", name, where="")
    toolchain: Toolchain = module.TOOLCHAIN
    if toolchain.interpreter == "node":
        packages = json.loads(toolchain.lock.read_text())["packages"]
        pinned = {path.rpartition("node_modules/")[2]: str(one) for path, one in packages.items()}
        needed, mark = {*toolchain_environment.named(toolchain), *module.PACKAGES}, "sha512-"
        del pinned[""]  # the project itself
    else:
        blocks = re.split(r"\n(?=[a-z])", toolchain.lock.read_text())[1:]
        pinned = {block.partition("==")[0]: block for block in blocks}
        debs = {name for one in toolchain.debian for name in one.packages}
        needed = {*toolchain_environment.named(toolchain), *module.PACKAGES, "numpy"} - debs
        mark = "--hash=sha256:"
    assert needed <= pinned.keys()
    assert [package for package, block in pinned.items() if mark not in block] == []
    assert name == toolchain.name
    assert min(toolchain.download_mb, toolchain.disk_mb, toolchain.minutes) > 0
    assert toolchain.pythons[0] <= sys.version_info[:2] <= toolchain.pythons[1]


@pytest.mark.parametrize("name", ISOLATED)
def test_an_isolated_toolchain_s_script_needs_nothing_of_fettle(name: str) -> None:
    toolchain: Toolchain = plugins.resolve("runtimes", name, where="").TOOLCHAIN
    if toolchain.interpreter == "node":
        for path in (toolchain.script, toolchain.harness):
            modules = re.findall(r'from "([^"]+)"', path.read_text())
            assert {module.partition(":")[0] for module in modules} == {"node"}
        offered = re.findall(r"export async function (\w+)", toolchain.script.read_text())
        assert {"toolkit", "compile", "open"} <= set(offered)
        return
    for path in (toolchain.script, toolchain.harness):
        assert "fettle" not in {
            (getattr(node, "module", None) or alias.name).partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
    functions = ast.parse(toolchain.script.read_text()).body
    assert {"toolkit", "compile", "open"} <= {getattr(node, "name", "") for node in functions}


@pytest.mark.parametrize("name", NAMES)
def test_looking_whether_it_is_there_imports_nothing(name: str) -> None:
    code = (
        f"import sys; from fettle.hardware.runtimes import {name} as runtime; "
        "found = runtime.available(); "
        "sys.exit(', '.join(m for m in ('onnxruntime', 'openvino', 'onnx', 'torch', 'pydantic') "
        "if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_installed_runtime_has_a_version_and_no_reason(runtime: ModuleType) -> None:
    found = runtime.available()
    assert isinstance(found, Availability)
    assert found.version
    assert (found.reason, found.install) == (None, None)


def test_the_entry_is_one_of_the_files_it_wrote(runtime: ModuleType, model: Path) -> None:
    out = model.parent / "out"
    out.mkdir()
    assert (out / runtime.compile(model, out)).is_file()


def test_every_runtime_gives_the_same_float_logits(runtime: ModuleType, model: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    out = model.parent / "out"
    out.mkdir()
    session = runtime.open(out / runtime.compile(model, out), threads=1)
    batch = tiny_onnx.images(12)
    (wanted,) = ReferenceEvaluator(str(model)).run(None, {"input": batch})
    answer = session.run(batch)
    assert (answer.dtype, answer.shape) == (np.float32, (12, 3))
    off = 1e-2 if name_of(runtime) in IN_FLOAT16 else 1e-4
    assert answer == pytest.approx(wanted, abs=off)
    assert session.run(batch[:1]) == pytest.approx(wanted[:1], abs=off)  # the batch is free


def test_a_session_knows_its_input(runtime: ModuleType, model: Path) -> None:
    out = model.parent / "out"
    out.mkdir()
    shape: Shape = runtime.open(out / runtime.compile(model, out), threads=1).input_shape
    assert shape == (1 if name_of(runtime) in ONE_BY_ONE else None, 1, 8, 8)


def test_a_missing_entry_is_a_model_error(runtime: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no model file gone: got nothing at "):
        runtime.open(tmp_path / "gone", threads=1)


@pytest.mark.parametrize(
    "name", [*BESIDE, *(f"hardware/runtimes/{name}" for name in ("__init__", *NAMES))]
)
def test_a_release_can_carry_it_without_the_rest_of_fettle(name: str) -> None:
    folder = Path(next(iter(importlib.import_module("fettle").__path__)))
    tree = ast.parse((folder / f"{name}.py").read_text())
    found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)} | {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    }
    own = {module for module in found if module and module.startswith("fettle")}
    allowed = {"fettle.errors", "fettle.hardware.runtimes"}
    ours = ("fettle.hardware.isolated", "fettle.hardware.ort_", "fettle.hardware.openvino_")
    assert {m for m in own if not m.startswith(ours)} <= allowed


def test_a_profile_names_each_kernel_and_its_time(runtime: ModuleType, model: Path) -> None:
    if not hasattr(runtime, "profile"):
        pytest.skip(f"needs a profiler in {runtime.__name__}")
    profiler = runtime.profile(model, threads=1)
    for _ in range(5):
        profiler.run(np.zeros((1, 1, 8, 8), np.float32))
    kernels = profiler.kernels()
    assert len({kernel.name for kernel in kernels}) == len(kernels)
    assert any("Conv" in kernel.kind for kernel in kernels)
    assert sum(kernel.ms for kernel in kernels) > 0
    assert not any(kernel.int8 for kernel in kernels)
