"""Code digests: what a package, parameter, plug-in or move makes stale; when they are written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from source_edits import ALL, EVALUATES, EXPORTS, GRAPH, ROOT, Change, Copy, changed, settings, swap

from fettle import params
from fettle.errors import ProjectError
from fettle.staleness import code_digest


@pytest.mark.parametrize(
    ("package", "stale"),
    [
        ("torch", {"finetune", "compress"}),
        ("torch-pruning", {"compress"}),
        (
            "onnxruntime",
            {"finetune", "latency_table", "compress", "verdict", "package"} | EXPORTS | EVALUATES,
        ),
        ("great-expectations", {"validate"}),
        ("scikit-learn", {"ingest"}),
        ("openvino", EVALUATES),
        ("starlette", {"package"}),
        ("mlflow", set()),
        ("prefect", set()),
    ],
)
def test_an_upgraded_package_makes_those_stages_stale_that_import_it(
    package: str, stale: set[str], copy: Copy
) -> None:
    index = copy.index()
    index.packages.versions[package] = "999.0"
    assert changed(copy, code_digest.documents(index, settings(), copy.tree)) == stale


@pytest.mark.parametrize(
    ("override", "stale"),
    [
        ("finetune.learning_rate=1e-2", {"finetune", "compress"}),
        ("evaluate.rounds=99", EVALUATES | {"select"}),  # select judges what was never timed
        ("verdict.class_drop_max=0.5", {"verdict"}),
        ("release.name=other", {"package"}),
        ("ingest.source=image_folder", {"ingest"}),
    ],
)
def test_a_parameter_makes_those_stages_stale_that_list_it(override: str, stale: set[str]) -> None:
    docs = [one.model_dump(mode="json", by_alias=True) for one in (settings(), settings(override))]
    found = set()
    for name, node in GRAPH.items():
        sections = [[dig(doc, dotted) for dotted in node.get("params", [])] for doc in docs]
        found |= {
            one for one in ALL if one.partition("@")[0] == name and sections[0] != sections[1]
        }
    assert found == stale


def test_a_source_that_is_chosen_anew_is_reached_in_the_old_one_s_place(copy: Copy) -> None:
    after = copy.documents(settings("ingest.source=image_folder"))
    assert changed(copy, after) == {"ingest"}
    assert "fettle/data/sources/image_folder.py" in after["ingest"]["functions"]
    assert "fettle/data/sources/digits.py" not in after["ingest"]["functions"]


def test_a_new_target_leaves_the_others_exports_alone(copy: Copy) -> None:
    after = copy.documents(settings("targets=[x86_ort_fp32, x86_ort_int8, x86_ort_w8]"))
    new = {"export@x86_ort_w8", "evaluate@x86_ort_w8"}
    assert changed(copy, after) == new | {"validate", "latency_table", "compress"}


def test_a_module_that_moved_is_another_module(
    copy: Copy, edit: Callable[[str, Change], None]
) -> None:
    edit(
        "fettle/compress/techniques/prune.py",
        lambda text: text.replace("_importance", "_importances"),
    )
    old = copy.tree / "fettle/compress/channel_importance.py"
    new = old.with_name("_importances.py")
    shutil.copy(old, new)
    try:
        assert "compress" in changed(copy, copy.documents(settings()))
    finally:
        new.unlink()


def test_an_import_by_a_name_that_nobody_states_takes_all_there_is(
    copy: Copy, edit: Callable[[str, Change], None]
) -> None:
    edit(
        "fettle/data/sources/digits.py",
        swap(
            "^def read",
            "def late(name: str) -> object:\n    import importlib\n\n"
            "    return importlib.import_module(name)\n\n\ndef read",
        ),
    )
    after = copy.documents(settings())
    assert "fettle/report/html_page.py" in after["ingest"]["functions"]
    assert "fettle/report/html_page.py" not in after["select"]["functions"]


def dig(doc: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        doc = doc[part]
    return doc


def test_a_stage_refuses_to_run_other_code_than_dvc_was_told_of(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    state = tmp_path / ".fettle"
    code_digest.refresh(tmp_path, params.load(tmp_path / "params.yaml"), state)
    code_digest.refuse_stale(tmp_path, state, "select", None)
    path = tmp_path / "inputs" / "code" / "select.json"
    told = json.loads(path.read_text())
    told["functions"]["stages/select.py"]["run"] = "0"
    path.write_text(json.dumps(told))
    code_digest.refuse_stale(tmp_path, state, "select", None)  # no file of the code has changed
    record = state / "code" / "written.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "installed": "other files"}))
    code_digest.refuse_stale(tmp_path, state, "ingest", None)  # one has, yet this stage has not
    with pytest.raises(ProjectError) as caught:
        code_digest.refuse_stale(tmp_path, state, "select", None)
    assert str(caught.value) == (
        "inputs/code/select.json is stale: got stages/select.py function `run` changed; an "
        "artefact is kept under the digest of the code that made it, and DVC was told of other "
        "code. Fix: use `fettle run` or `dvc repro`, and let the code stand while they run."
    )


def test_digests_are_written_once_and_again_when_somebody_took_one_away(tmp_path: Path) -> None:
    chosen = settings()
    code_digest.refresh(tmp_path, chosen, tmp_path / ".fettle")
    folder = tmp_path / "inputs" / "code"
    assert len(list(folder.rglob("*.json"))) == 12
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    (folder / "select.json").unlink()
    (folder / "export" / "gone_target.json").write_text("{}")
    code_digest.refresh(tmp_path, settings("seed=99"), tmp_path / ".fettle")
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    assert {path for path in after if after[path] != before[path]} == {folder / "select.json"}
    assert after.keys() == before.keys()


def test_an_edit_that_leaves_size_and_mtime_as_they_were_is_seen(
    copy: Copy, edit: Callable[[str, Change], None]
) -> None:
    path = copy.tree / "stages" / "select.py"
    stat = path.stat()
    edit("stages/select.py", swap("^MEASURES = False", "MEASURES = Falsy"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert changed(copy, copy.documents(settings())) == {"select"}
