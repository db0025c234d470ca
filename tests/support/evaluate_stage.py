"""The evaluate stage on exports sealed by hand."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import pytest
import tiny_onnx
from tiny_project import TinyProject, settings

from fettle import manifest
from fettle.hardware.targets import x86_ort_fp32, x86_ort_int8
from fettle.quantize import static_int8
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import evaluate

READS = ("ingest", "validate", "finetune", "compress", "export")


def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the x86 records be this machine's, whatever it is."""
    for module in (x86_ort_fp32, x86_ort_int8):
        record = dataclasses.replace(module.TARGET, machine=(platform.machine(),))
        monkeypatch.setattr(module, "TARGET", record)


def wide_project(folder: Path) -> TinyProject:
    # a float model so wide that the compressed one is faster whatever else the machine does
    return TinyProject(folder, noise=0.9, width=512)


def exported(project: TinyProject, target: str, **facts: Any) -> Path:
    """Seal an export by hand; its model.onnx is there already unless facts say otherwise."""
    folder = project.folder(f"export@{target}")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != manifest.NAME)
    given = {"entry": "model.onnx", "size_bytes": size, "macs": 10_000, **facts}
    project.seal(f"export@{target}", facts=given)
    return folder


def plain(project: TinyProject) -> None:
    source = project.folder("compress") / "model.onnx"
    (project.folder("export@x86_ort_fp32") / "model.onnx").write_bytes(source.read_bytes())
    exported(project, "x86_ort_fp32")


def int8(project: TinyProject) -> Path:
    folder = project.folder("export@x86_ort_int8")
    static_int8.apply(
        project.folder("compress") / "model.onnx",
        folder / "model.onnx",
        batches=[tiny_onnx.images(48)],
        calibrate="minmax",
    )
    return exported(project, "x86_ort_int8")


def run(project: TinyProject, target: str) -> Outputs:
    inputs = project.inputs(*READS, target=target)
    return evaluate.run(settings(), inputs, project.root, MemoryRecorder())
