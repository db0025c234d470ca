"""dvc.yaml says the same as the stage files, and each stage depends on its own code."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fettle import params, workspace
from fettle.adapters import dvc_graph
from fettle.staleness import code_digest
from fettle.staleness.source_index import Index

ROOT = Path(__file__).resolve().parent.parent.parent
WHOLE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
FIRST = WHOLE[code_digest.FIRST]  # it writes what the others depend on, and makes no artefact
GRAPH = {name: node for name, node in WHOLE.items() if name != code_digest.FIRST}
LINES_MAX = 130

PARAMS_FILES = ["params.yaml", "examples/photos.yaml", "examples/fashion_mnist.yaml"]


def stage_files() -> list[str]:
    return sorted(p.stem for p in (ROOT / "stages").glob("[!_]*.py"))


def test_one_stage_is_one_file() -> None:
    assert len(GRAPH) == 10
    assert sorted(WHOLE) == stage_files()


def test_the_graph_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_a_stage_depends_on_its_own_code_and_names_no_source_file(name: str) -> None:
    matrix = "matrix" in GRAPH[name]
    assert matrix == getattr(importlib.import_module(f"stages.{name}"), "PER_TARGET", False)
    own = f"inputs/code/{name}/${{item.target}}.json" if matrix else f"inputs/code/{name}.json"
    deps = GRAPH[name]["deps"]
    assert [dep for dep in deps if dep.startswith("inputs/code")] == [own]
    assert not [dep for dep in deps if dep.startswith(("fettle/", "stages/"))]


def test_the_first_stage_is_always_asked_and_its_files_are_left_in_place() -> None:
    assert FIRST["cmd"] == "fettle stage inputs"
    assert FIRST["always_changed"]
    outs = {path: how for out in FIRST["outs"] for path, how in out.items()}
    assert sorted(outs) == ["inputs/code", "inputs/model.json", "inputs/source.json"]
    assert all(how == {"cache": False, "persist": True} for how in outs.values())
    # a run on another machine must not change what this stage leaves in dvc.lock
    assert "inputs/machine.json" not in outs


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
    assert GRAPH[name]["cmd"] == f"fettle stage {name}{target}"
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
    found = [name for name in dvc_graph.load(tmp_path) if "@" in name]
    assert sorted(found) == ["evaluate@x86_ort_fp32", "export@x86_ort_fp32"]


@pytest.mark.parametrize("file", PARAMS_FILES)
def test_no_stage_imports_by_a_name_that_nobody_stated(file: str, tmp_path: Path) -> None:
    """Such an import counts as all there is: every edit would make that stage stale."""
    index = Index.of_installed(tmp_path)
    found = code_digest.documents(index, params.load(ROOT / file), ROOT)
    assert len(found) > 10
    whole = [name for name, doc in found.items() if "fettle/cli/main.py" in doc["functions"]]
    assert whole == [], "state the names in IMPORTS_BY_NAME (fettle/staleness/reachability.py)"


def test_plug_ins_are_asked_for_in_the_form_that_can_be_read_off(tmp_path: Path) -> None:
    """`plugins.resolve("folder", name)`: under another name the call would not be seen."""
    index = Index.of_installed(tmp_path)
    seen, hidden = 0, []
    for module in index.sources.files:
        for symbol in index.sources.read(module).symbols.values():
            seen += len(symbol.plugins)
            for bound, (base, name) in symbol.imports.items():
                taken = base == "fettle.plugins" and name in code_digest.LOADING
                renamed = f"{base}.{name}" == "fettle.plugins" and bound != "plugins"
                if taken or renamed:
                    hidden.append(f"{module}: {bound}")
    assert seen > 20
    assert hidden == []
