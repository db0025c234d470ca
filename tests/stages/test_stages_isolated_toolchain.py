"""Export, evaluate and package of a target whose toolchain has an environment of its own."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from tiny_project import TinyProject, settings

from fettle import manifest
from fettle.evaluation import latency_comparison
from fettle.facts.export_facts import ExportFacts
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import iree
from fettle.hardware.targets import x86_iree_fp32
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import evaluate, export, package

ROOT = Path(__file__).resolve().parents[2]
NAME = "x86_iree_fp32"
CARRIED = {
    "fettle/hardware/runtimes/iree.py",
    "fettle/hardware/isolated/__init__.py",
    "fettle/hardware/isolated/debian_packages.py",
    "fettle/hardware/isolated/emulated_python.py",
    "fettle/hardware/isolated/host_requirements.py",
    "fettle/hardware/isolated/iree_devices.py",
    "fettle/hardware/isolated/node_packages.py",
    "fettle/hardware/isolated/toolchain.py",
    "fettle/hardware/isolated/toolchain_environment.py",
    "fettle/hardware/isolated/worker_harness.py",
    "fettle/hardware/isolated/locks/iree.txt",
    "fettle/hardware/isolated/scripts/run_iree.py",
    "fettle/hardware/isolated/isolated_session.py",
    "fettle/hardware/isolated/isolated_worker.py",
}


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    here = dataclasses.replace(x86_iree_fp32.TARGET, machine=(platform.machine(),))
    monkeypatch.setattr(x86_iree_fp32, "TARGET", here)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return TinyProject(tmp_path, noise=0.9, width=512)


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "toolchains"
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(folder))
    return folder


def exported(project: TinyProject) -> Outputs:
    out = project.folder(f"export@{NAME}")
    inputs = project.inputs("ingest", "validate", "compress", target=NAME)
    made = export.run(settings(), inputs, out, MemoryRecorder())
    project.seal(f"export@{NAME}", facts=made.facts)
    return made


def evaluated(project: TinyProject) -> Outputs:
    reads = ("ingest", "validate", "finetune", "compress", "export")
    inputs = project.inputs(*reads, target=NAME)
    return evaluate.run(settings(), inputs, project.root, MemoryRecorder())


def carried(project: TinyProject, release: Path) -> set[str]:
    """Copy what a release on this runtime carries; name its runtime's files."""
    (project.root / "bentos" / "tiny").mkdir(parents=True)
    (project.root / "bentos" / "tiny" / "service.py").write_text("import numpy\n")
    (project.root / "requirements.lock").write_bytes((ROOT / "requirements.lock").read_bytes())
    facts = manifest.read(project.folder(f"export@{NAME}"), ExportFacts, verify=False).facts
    params = settings("release.service=tiny")
    package.copy_sources(project.root, params, facts, release)
    found = {path.relative_to(release).as_posix() for path in release.rglob("*.*")}
    return {
        name
        for name in found
        if ("runtimes" in name or "isolated" in name) and not name.endswith("runtimes/__init__.py")
    }


def test_a_run_installs_nothing_and_says_what_would(
    project: TinyProject, nothing_installed: Path
) -> None:
    facts = exported(project).facts
    assert facts.entry is None
    told = "the toolchain iree is not installed (install: fettle targets install iree)"
    assert facts.unavailable == told
    judged = evaluated(project).facts
    assert (judged.verdict, judged.evidence) == ("refused", "not measured")
    assert judged.reason == told
    assert not nothing_installed.exists()


def test_a_release_carries_what_its_worker_reads(
    project: TinyProject, nothing_installed: Path, tmp_path: Path
) -> None:
    exported(project)
    assert carried(project, tmp_path / "release") == CARRIED


def test_it_is_no_rival_of_the_other_targets(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    found = dataclasses.replace(iree.available(), ok=True)
    monkeypatch.setattr(iree, "available", lambda: found)
    monkeypatch.setattr(iree, "open", lambda entry, **_: opened.append(entry))
    model = project.folder("finetune") / "model.onnx"
    assert set(latency_comparison.open_float_models(model, threads=1)) <= {"float_openvino"}
    assert opened == []


@pytest.mark.toolchain
def test_it_is_measured_in_its_own_process_and_held_to_the_same_parity(
    project: TinyProject,
) -> None:
    toolchain_environment.install(iree.TOOLCHAIN, say=sys.stderr.write)
    made = exported(project)
    assert (made.facts.entry, made.facts.version) == ("model.vmfb", "3.13.0")
    outputs = evaluated(project)
    assert outputs.facts.evidence == "measured", outputs.facts.reason
    assert outputs.facts.parity.top1 == 1.0
    assert outputs.facts.parity.max_abs < 1e-4
    assert 0 < outputs.measures["latency_p50_ms"].value < 50
    assert outputs.measures["peak_memory_bytes"].value > 0


@pytest.mark.toolchain
def test_a_release_on_it_answers_without_the_rest_of_fettle(
    project: TinyProject, tmp_path: Path
) -> None:
    toolchain_environment.install(iree.TOOLCHAIN, say=sys.stderr.write)
    exported(project)
    release = tmp_path / "release"
    carried(project, release)
    batch = tiny_onnx.images(4)
    np.save(tmp_path / "batch.npy", batch)
    code = (
        "import sys; from pathlib import Path; import numpy as np; import fettle; "
        "from fettle.hardware.runtimes import iree; print(fettle.__file__); "
        "session = iree.open(Path(sys.argv[1]), threads=1); "
        "np.save(sys.argv[3], session.run(np.load(sys.argv[2])))"
    )
    entry = project.folder(f"export@{NAME}") / iree.ENTRY
    places = [str(entry), str(tmp_path / "batch.npy"), str(tmp_path / "answer.npy")]
    done = subprocess.run(
        [sys.executable, "-c", code, *places],
        env={**os.environ, "PYTHONPATH": str(release)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(release))
    wanted = iree.open(entry, threads=1).run(batch)
    assert np.load(tmp_path / "answer.npy") == pytest.approx(wanted, abs=1e-6)
