"""An edit makes exactly those stages stale that reach it: thirty seeded edits, by digests alone."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fettle import params
from fettle.errors import ProjectError
from fettle.params import Params
from fettle.staleness import code_digest
from fettle.staleness.source_index import Index

ROOT = Path(__file__).resolve().parents[2]
GRAPH: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
LISTED = (
    "targets=[x86_ort_fp32, x86_ort_int8]",
    "finetune.family=small_cnn",
    "finetune.options={}",
    "compress.recipe=[{use: prune, keep_fraction: 0.5}, {use: distil, epochs: 2}]",
)
EXPORTS = {"export@x86_ort_fp32", "export@x86_ort_int8"}
EVALUATES = {"evaluate@x86_ort_fp32", "evaluate@x86_ort_int8"}
FRONT = {"ingest", "validate", "finetune", "latency_table", "compress"}
BACK = {"select", "verdict", "package"}
ALL = FRONT | EXPORTS | EVALUATES | BACK
READERS = {"finetune", "compress", "verdict", "package"} | EXPORTS | EVALUATES  # of images


@dataclass(frozen=True)
class Copy:
    """A copy of our sources to edit, and the digests of every stage as they stood."""

    tree: Path
    before: dict[str, dict[str, dict[str, Any]]]

    def index(self) -> Index:
        return Index({name: self.tree / name for name in ("fettle", "stages")}, self.tree / "cache")

    def documents(self, settings: Params) -> dict[str, dict[str, dict[str, Any]]]:
        index = self.index()
        found = code_digest.documents(index, settings, self.tree)
        index.save()
        return found


def settings(*overrides: str) -> Params:
    return params.load(ROOT / "params.yaml", [*LISTED, *overrides])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    tree = tmp_path_factory.mktemp("copy")
    for name in ("fettle", "stages", "bentos"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    bare = Copy(tree, {})
    return Copy(tree, bare.documents(settings()))


Change = Callable[[str], str]  # a file's text before and after


@pytest.fixture
def edit(copy: Copy) -> Iterator[Callable[[str, Change], None]]:
    """Change one file of the copy; all is put back after the test."""
    kept: dict[Path, str] = {}

    def write(file: str, change: Change) -> None:
        path = copy.tree / file
        text = kept.setdefault(path, path.read_text())
        assert change(text) != text, f"{file} stays as it is"
        path.write_text(change(text))

    yield write
    for path, text in kept.items():
        path.write_text(text)


def swap(old: str, new: str) -> Change:
    """Replace the first match of a pattern, which must be there."""

    def change(text: str) -> str:
        assert re.search(old, text, re.MULTILINE), old
        return re.sub(old, new, text, count=1, flags=re.MULTILINE)

    return change


def inside(name: str) -> Change:
    """Put a statement at the end of a function, or of a class."""

    def change(text: str) -> str:
        node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == name)
        lines = text.splitlines(keepends=True)
        first = node.body[-1]  # type: ignore[attr-defined]  # a function or a class
        lines.insert(first.lineno - 1, " " * first.col_offset + "assert True\n")
        return "".join(lines)

    return change


def above(line: str) -> Change:
    """Put a line before the text."""
    return lambda text: f"{line}\n{text}"


def changed(copy: Copy, after: dict[str, dict[str, dict[str, Any]]]) -> set[str]:
    return {name for name in after if after[name] != copy.before.get(name)}


RUNNERS = {"latency_table", "compress", "verdict", "package"} | EXPORTS | EVALUATES
# what is edited: its file, the change, the stages that become stale
EDITS: dict[str, tuple[str, Change, set[str]]] = {
    "a comment": ("fettle/training/training_loop.py", above("# a remark"), set()),
    "a comment in a line": ("stages/compress.py", swap(r"^(READS = .*)$", r"\1  # x"), set()),
    "blank lines": (
        "fettle/compress/techniques/prune.py",
        swap(r"^def apply", "\n\n\ndef apply"),
        set(),
    ),
    "brackets": (
        "stages/compress.py",
        swap(r"^MEASURES = (\w+)", r"MEASURES = (\n    \1\n)"),
        set(),
    ),
    "a module's docstring": ("stages/finetune.py", swap(r'\A"""', '"""Otherwise: '), set()),
    "a function's docstring": (
        "fettle/models/export_onnx.py",
        swap(r'^    """', '    """Otherwise: '),
        set(),
    ),
    "a helper of one stage": ("stages/finetune.py", inside("training_plan"), {"finetune"}),
    "the training loop": (
        "fettle/training/training_loop.py",
        inside("fit"),
        {"finetune", "compress"},
    ),
    "a learning-rate schedule's name": (
        "fettle/training/learning_rate_schedule.py",
        swap(r"^def (\w+)\(", r"def \1_renamed("),
        {"finetune", "compress"},
    ),
    "a technique of the recipe": (
        "fettle/compress/techniques/prune.py",
        inside("apply"),
        {"compress"},
    ),
    "what such a technique proposes": (
        "fettle/compress/techniques/prune.py",
        inside("proposals"),
        {"compress"},
    ),
    "a technique that is not in it": (
        "fettle/compress/techniques/sparse.py",
        inside("apply"),
        set(),
    ),
    "how int8 is calibrated": (  # repeats no search
        "fettle/quantize/quantizers/calibrated_int8.py",
        inside("apply"),
        {"export@x86_ort_int8"},
    ),
    "which layers go back to float": (
        "fettle/quantize/float_fallback.py",
        inside("rank_layers"),
        {"export@x86_ort_int8"},
    ),
    "the int8 form, whose kernels the latency table times": (
        "fettle/quantize/static_int8.py",
        inside("finish"),
        {"latency_table", "export@x86_ort_int8"},
    ),
    "int4 weights, which no target here has": (
        "fettle/quantize/quantizers/weight_int4.py",
        inside("apply"),
        set(),
    ),
    "a target": (
        "fettle/hardware/targets/x86_ort_int8.py",
        swap("channel_multiple=8", "channel_multiple=16"),
        {"validate", "latency_table", "compress", "export@x86_ort_int8", "evaluate@x86_ort_int8"},
    ),
    "a target's docstring": (
        "fettle/hardware/targets/x86_ort_int8.py",
        swap(r'\A"""', '"""O: '),
        set(),
    ),
    "a target that is not asked for": (
        "fettle/hardware/targets/x86_openvino_int8.py",
        swap(r"channel_multiple=\d+", "channel_multiple=2"),
        set(),
    ),
    "the runtime": ("fettle/hardware/runtimes/ort.py", inside("open"), RUNNERS),
    "how that runtime compiles": (
        "fettle/hardware/runtimes/ort.py",
        inside("compile"),
        RUNNERS - {"compress"},
    ),
    "a runtime that no target has": (  # the float model is timed under every runtime that is here
        "fettle/hardware/runtimes/openvino.py",
        inside("open"),
        EVALUATES,
    ),
    "the source": ("fettle/data/sources/digits.py", swap("255 / 16", "256 / 16"), {"ingest"}),
    "another source": ("fettle/data/sources/image_folder.py", inside("read"), set()),
    "the family": (
        "fettle/models/families/small_cnn.py",
        inside("build"),
        {"finetune", "compress"},
    ),
    "another family": ("fettle/models/families/resnet.py", inside("build"), set()),
    "a check of the data": ("fettle/data/checks/balance.py", inside("rules"), {"validate"}),
    "the page of the checks": ("fettle/data/validation.html", above("<!-- x -->"), {"validate"}),
    "the style it inlines": ("fettle/report/page.css", above("/* x */"), {"validate"}),
    "the report": ("fettle/report/html_page.py", inside("render"), set()),
    "the supervisor": ("fettle/rollout/supervisor/controller_process.py", inside("main"), set()),
    "a comment that a release carries": (
        "fettle/serving/asgi_app.py",
        above("# a remark"),
        {"package"},
    ),
    "the search": ("fettle/recipes/search/search_loop.py", inside("search"), {"compress"}),
    "how pixels are normalised": ("fettle/preprocessing.py", inside("Preprocess"), READERS),
    "how latencies are taken": (
        "fettle/hardware/latency_measurement.py",
        inside("interleave"),
        {"latency_table"} | EVALUATES,
    ),
    "the manifest's schema": ("fettle/manifest.py", swap("^SCHEMA = 1", "SCHEMA = 2"), ALL),
    "how the runner reports": ("stages/__main__.py", inside("explain"), set()),
    "the first stage": ("stages/inputs.py", inside("write"), set()),
}


@pytest.mark.parametrize(("file", "change", "stale"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_makes_exactly_these_stages_stale(
    file: str,
    change: Change,
    stale: set[str],
    copy: Copy,
    edit: Callable[[str, Change], None],
) -> None:
    edit(file, change)
    assert changed(copy, copy.documents(settings())) == stale


AUTO = "compress.recipe=auto"
SEARCHED = {
    "a technique that the search may propose": (
        "fettle/compress/techniques/sparse.py",
        "apply",
        {"compress"},
    ),
    "what a finalist is finished with": (
        "fettle/compress/techniques/distil.py",
        "apply",
        {"compress"},
    ),
    "the family of a student": ("fettle/models/families/small_cnn.py", "build", {"compress"}),
    "a family that nobody names": ("fettle/models/families/torch_module.py", "build", set()),
    "the int4 quantizer": ("fettle/quantize/quantizers/weight_int4.py", "apply", set()),
}


@pytest.mark.parametrize(("file", "name", "stale"), SEARCHED.values(), ids=SEARCHED.keys())
def test_a_search_reaches_what_it_may_propose(
    file: str, name: str, stale: set[str], copy: Copy, edit: Callable[[str, Change], None]
) -> None:
    searched = settings(AUTO, "finetune.family=resnet")
    before = copy.documents(searched)
    edit(file, inside(name))
    after = copy.documents(searched)
    assert {name for name in after if after[name] != before[name]} == stale


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
        ("evaluate.rounds=99", EVALUATES),
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
