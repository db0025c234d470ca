"""dvc.yaml says the same as the stage files, and its deps cover every import."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fettle import params, workspace
from fettle.adapters import graph

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import closure  # noqa: E402  tools/ is a folder of scripts, not a package

GRAPH: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]

PARAMS_FILES = ["params.yaml", "examples/photos.yaml", "examples/fashion_mnist.yaml"]


def stage_files() -> list[str]:
    return sorted(p.stem for p in (ROOT / "stages").glob("[!_]*.py"))


def test_one_stage_is_one_file() -> None:
    assert len(GRAPH) == 10
    assert sorted(GRAPH) == stage_files()


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_the_deps_of_a_stage_cover_all_it_imports(name: str) -> None:
    node = GRAPH[name]
    missing = set(closure.wanted_deps(name, node)) - set(node["deps"])
    assert not missing, f"run `make graph`: {name} lacks {sorted(missing)}"
    assert all("$" in d or (ROOT / d).exists() for d in node["deps"] if closure.is_code(d))


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_what_a_stage_reads_is_what_dvc_thinks_it_reads(name: str) -> None:
    stage = importlib.import_module(f"stages.{name}")
    listed = {d.removeprefix("artifacts/") for d in GRAPH[name]["deps"] if "artifacts/" in d}
    forms = {"@*": "", "@": "/${item.target}"}
    reads = set()
    for read in stage.READS:
        base, at, star = read.partition("@")
        reads.add(base + forms.get(at + star, ""))
    assert reads == listed


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_what_a_stage_may_see_is_what_makes_it_stale(name: str) -> None:
    stage = importlib.import_module(f"stages.{name}")
    assert sorted(stage.SECTIONS) == sorted(GRAPH[name]["params"])


@pytest.mark.parametrize("file", PARAMS_FILES)
def test_every_params_file_holds_what_dvc_asks_of_it(file: str) -> None:
    doc = YAML(typ="safe").load((ROOT / file).read_text())
    asked = {section for node in GRAPH.values() for section in node["params"]}
    assert len(asked) > 10
    missing = sorted(section for section in asked if not _holds(doc, section.split(".")))
    assert not missing, f"dvc refuses a key without a line in {file}: a default is not enough"


def _holds(doc: Any, parts: list[str]) -> bool:
    return not parts or (parts[0] in doc and _holds(doc[parts[0]], parts[1:]))


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_a_stage_has_one_out_and_the_plain_command(name: str) -> None:
    target = " ${item.target}" if "matrix" in GRAPH[name] else ""
    assert GRAPH[name]["cmd"] == f"python -m stages {name}{target}"
    assert GRAPH[name]["outs"] == [f"artifacts/{name}{target.replace(' ', '/')}"]


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_a_stage_says_what_it_reads_writes_and_refuses(name: str) -> None:
    text = (importlib.import_module(f"stages.{name}").__doc__ or "").lower()
    assert all(word in text for word in ("reads", "writes", "params", "refuses")), name


def test_a_workspace_runs_its_own_targets_only(tmp_path: Path) -> None:
    """A second dvc.yaml in the tree (`fettle init` copies one) would add that one's stages."""
    workspace.sync(ROOT, tmp_path)
    composed = params.compose(ROOT / "params.yaml", ["targets=[x86_ort_fp32]"])
    YAML(typ="rt").dump(composed, tmp_path / "params.yaml")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    found = [name for name in graph.load(tmp_path) if "@" in name]
    assert sorted(found) == ["evaluate@x86_ort_fp32", "export@x86_ort_fp32"]
