"""What a stage's result depends on of the toolchains: its own target's alone."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fettle import plugins
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import iree, ort
from fettle.hardware.toolchain_facts import (
    float_runtime_facts,
    profiled_runtime_facts,
    toolchain_facts,
)

ROOT = Path(__file__).resolve().parents[2]
ISOLATED = "x86_iree_fp32"


@pytest.fixture(autouse=True)
def _nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path / "toolchains"))


def pretend_install(version: str = "3.13.0") -> None:
    place = toolchain_environment.folder(iree.TOOLCHAIN)
    (place / "bin").mkdir(parents=True, exist_ok=True)
    if not (place / "bin" / "python").exists():
        (place / "bin" / "python").symlink_to(sys.executable)
    packages = dict.fromkeys(iree.PACKAGES, version)
    stamp = {"python": "3.11.7", "packages": {**packages, "sympy": "1.14.0"}}
    (place / toolchain_environment.STAMP).write_text(json.dumps(stamp))


def test_a_runtime_in_our_own_environment_states_its_package_and_our_python() -> None:
    assert toolchain_facts("x86_ort_int8") == {
        "runtime": "ort",
        "packages": {"onnxruntime": metadata.version("onnxruntime")},
        "lock": None,
        "python": platform.python_version(),
    }


def test_an_isolated_one_states_its_lock_before_it_is_installed_and_its_versions_after() -> None:
    lock = toolchain_environment.lock_digest(iree.TOOLCHAIN)
    none = {"iree-base-compiler": None, "iree-base-runtime": None}
    absent = {"runtime": "iree", "packages": none, "lock": lock, "python": None}
    assert toolchain_facts(ISOLATED) == absent
    pretend_install()
    assert toolchain_facts(ISOLATED) == {
        "runtime": "iree",
        "packages": {"iree-base-compiler": "3.13.0", "iree-base-runtime": "3.13.0"},
        "lock": lock,
        "python": "3.11.7",
    }


def test_installing_one_changes_the_facts_of_its_own_targets_alone() -> None:
    names = plugins.names("targets")

    def stated() -> dict[str, object]:
        targets = {name: toolchain_facts(name) for name in names}
        return {**targets, "floats": float_runtime_facts(), "table": profiled_runtime_facts(names)}

    before = stated()
    pretend_install()
    after = stated()
    of_it = {
        name
        for name in names
        if plugins.resolve("targets", name, where="targets").TARGET.runtime == "iree"
    }
    assert ISOLATED in of_it
    assert {name for name in after if after[name] != before[name]} == of_it


def test_the_float_model_s_rivals_are_the_runtimes_in_our_own_environment() -> None:
    assert sorted(float_runtime_facts()) == ["openvino", "ort"]


def test_the_latency_table_depends_on_what_it_can_profile() -> None:
    assert sorted(profiled_runtime_facts([ISOLATED, "x86_ort_int8"])) == ["ort"]
    assert profiled_runtime_facts([ISOLATED]) == {}


def test_a_runtime_without_a_profiler_is_nothing_to_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ort, "profile")
    assert profiled_runtime_facts(["x86_ort_int8"]) == {}


def test_the_facts_are_json_and_the_same_twice() -> None:
    for name in plugins.names("targets"):
        assert json.loads(json.dumps(toolchain_facts(name))) == toolchain_facts(name)


def test_only_a_target_s_own_stages_depend_on_its_toolchain() -> None:
    graph = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
    own = "inputs/toolchain/${item.target}.json"
    assert {stage for stage, node in graph.items() if own in node.get("deps", [])} == {
        "export",
        "evaluate",
    }
    named = [dep for node in graph.values() for dep in node.get("deps", []) if "toolchain" in dep]
    assert named == [own, own]
