"""A target in a user's project folder: one data file, listed and run with no edit of fettle."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from evaluate_stage import wide_project
from tiny_project import ROOT, TinyProject, settings

from fettle import plugins
from fettle.errors import ParamsError, TargetError
from fettle.recorder import MemoryRecorder
from fettle.staleness import code_digest
from fettle.staleness.source_index import Index
from stages import evaluate, export

NAME = "till_ort_w8"
RECORD = f'''"""The till in the shop, ONNX Runtime, int8 weights: a CPU as this one."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="till",
    family="x86 CPU",
    machine=("{platform.machine()}",),
    runtime="ort",
    precision="w8",
    dialect=None,
    channel_multiple=8,
)
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    made = wide_project(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    write(tmp_path, NAME, RECORD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FETTLE_ROOT", raising=False)
    return made


def write(folder: Path, name: str, text: str) -> None:
    (folder / "targets").mkdir(exist_ok=True)
    (folder / "targets" / f"{name}.py").write_text(text)


def listed(folder: Path) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "fettle.cli.main", "targets", "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_it_is_listed_beside_fettle_s_own_and_only_in_its_project(
    project: TinyProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row = next(row for row in listed(project.root) if row["target"] == NAME)
    assert (row["hardware"], row["runs_here"]) == ("till", True)
    assert str(row["about"]).startswith("The till in the shop")
    assert NAME not in [row["target"] for row in listed(tmp_path_factory.mktemp("elsewhere"))]


def test_it_is_exported_and_measured(project: TinyProject) -> None:
    given = settings(f"targets=[x86_ort_fp32, {NAME}]")
    out = project.folder(f"export@{NAME}")
    inputs = project.inputs("ingest", "validate", "compress", target=NAME)
    made = export.run(given, inputs, out, MemoryRecorder())
    assert (made.facts.hardware, made.facts.precision) == ("till", "w8")
    project.seal(f"export@{NAME}", facts=made.facts)
    reads = ("ingest", "validate", "finetune", "compress", "export")
    inputs = project.inputs(*reads, target=NAME)
    facts = evaluate.run(given, inputs, project.folder("out"), MemoryRecorder()).facts
    assert (facts.target, facts.evidence) == (NAME, "measured")
    assert facts.parity is not None
    assert facts.parity.top1 > 0.9


def test_an_edit_of_it_makes_its_own_stages_stale_and_no_others(project: TinyProject) -> None:
    given = settings(f"targets=[x86_ort_fp32, {NAME}]")
    index = Index.of_installed(project.root / "cache")
    before = code_digest.documents(index, given, project.root)
    assert f"targets/{NAME}.py" in before[f"export@{NAME}"]["data"]
    assert "fettle/hardware/runtimes/iree.py" not in before[f"export@{NAME}"]["functions"]
    write(project.root, NAME, RECORD.replace("channel_multiple=8", "channel_multiple=16"))
    after = code_digest.documents(index, given, project.root)
    stale = {address for address in before if before[address] != after[address]}
    assert {f"export@{NAME}", f"evaluate@{NAME}", "compress"} <= stale
    assert not {"ingest", "finetune", "export@x86_ort_fp32", "evaluate@x86_ort_fp32"} & stale


def test_a_file_that_is_no_record_is_told_by_its_name(project: TinyProject) -> None:
    for text, got in (
        ("TARGET = 3\n", "TypeError: TARGET is no Target but 3"),
        ("x = 1\n", "AttributeError: module 'fettle.hardware.targets.broken' has no attribute"),
        ("def (\n", "SyntaxError: "),
        (RECORD.replace('    hardware="till",\n', ""), "TypeError: Target.__init__() missing 1"),
    ):
        write(project.root, "broken", text)
        with pytest.raises(ParamsError) as caught:
            plugins.resolve("targets", "broken", where="targets[0]")
        told = str(caught.value)
        assert told.startswith(
            f"the project's own targets/broken.py is no record of a target: got {got}"
        )
        assert told.endswith(
            f"Fix: copy one of them to {project.root}/targets/broken.py and change its values."
        )


def test_a_wrong_value_in_it_is_told_by_the_record(project: TinyProject) -> None:
    write(project.root, "broken", RECORD.replace('"w8"', '"w7"'))
    with pytest.raises(TargetError, match=r"^unknown precision: got 'w7', did you mean 'w"):
        plugins.resolve("targets", "broken", where="targets[0]")


def test_the_name_of_one_of_fettle_s_own_is_refused(project: TinyProject) -> None:
    write(project.root, "x86_ort_w8", RECORD)
    with pytest.raises(ParamsError) as caught:
        plugins.resolve("targets", "x86_ort_w8", where="targets[0]")
    assert str(caught.value) == (
        "the project's own targets/x86_ort_w8.py has the name of one of fettle's: got "
        f"{project.root}/targets/x86_ort_w8.py; a name stands for one file, and "
        "fettle/hardware/targets/x86_ort_w8.py has this one. Fix: give the file another name, in "
        "params.yaml too."
    )


def test_a_folder_of_that_name_elsewhere_is_not_looked_into(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "params.yaml").unlink()
    assert NAME not in plugins.names("targets")
    monkeypatch.setenv("FETTLE_ROOT", str(project.root))
    assert NAME not in plugins.names("targets")
