"""Seeded faults: what changes a model's answers is caught by parity, and a good file is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import int8_file
import numpy as np
import onnx
import pytest
import tiny_onnx
from evaluate_stage import exported
from tiny_project import TinyProject, settings

from benchmarks import seeded_faults, target_faults
from benchmarks.target_faults import FaultJob, FaultRow
from fettle import manifest
from fettle.facts.export_facts import ExportFacts
from fettle.hardware.runtimes import ort
from fettle.hardware.targets import x86_ort_int8

NAME = "x86_ort_int8"
FAULTS = {fault.name: fault for fault in seeded_faults.MODEL_FAULTS}


@pytest.fixture
def job(tmp_path: Path) -> FaultJob:
    """An int8 file of a tiny network on 60 images, which a budget of its own judges."""
    project = TinyProject(tmp_path)
    folder = project.folder(f"export@{NAME}")
    model = project.folder("compress") / "model.onnx"
    batches = [tiny_onnx.images(48)]
    int8_file.write(model, folder / "model.onnx", batches=batches, calibrate="minmax")
    exported(project, NAME)
    facts = manifest.read(folder, ExportFacts, verify=False).facts
    given = settings("compress.budget.drop_max=0.2", "evaluate.accuracy_images_min=60")
    work = tmp_path / "work"
    work.mkdir()
    return FaultJob(given, tmp_path, NAME, x86_ort_int8.TARGET, ort, facts, work)


def good(job: FaultJob) -> Path:
    return job.project / "artifacts" / "export" / NAME


def with_fault(job: FaultJob, name: str) -> FaultRow:
    target_faults.judge(job, good(job), "", None)
    folder = job.work / "faulty"
    folder.mkdir()
    assert seeded_faults.seeded(FAULTS[name], good(job) / "model.onnx", folder / "model.onnx")
    return target_faults.judge(job, folder, name, job.work / "good")


def test_a_good_file_passes(job: FaultJob) -> None:
    row = target_faults.judge(job, good(job), "", None)
    assert (row.caught_by, row.n) == ("passed", 60)


@pytest.mark.parametrize("name", ["wrapped fixed point", "transposed input", "wrong label order"])
def test_a_silent_mistake_is_caught_though_it_loads_and_runs(job: FaultJob, name: str) -> None:
    row = with_fault(job, name)
    assert row.caught_by in ("parity", "the accuracy budget"), row


@pytest.mark.parametrize("name", ["wrong mean", "per-tensor weights", "wrong zero point"])
def test_a_mistake_that_this_network_bears_is_not_called_caught(job: FaultJob, name: str) -> None:
    row = with_fault(job, name)
    assert row.caught_by in ("parity", "the accuracy budget", "no answer changed"), row


def test_a_truncated_file_does_not_load(job: FaultJob) -> None:
    folder = job.work / "faulty"
    shutil.copytree(good(job), folder)
    seeded_faults.truncated(good(job) / "model.onnx", folder / "model.onnx")
    assert target_faults.judge(job, folder, "truncated file", None).caught_by == "loading"


def test_per_tensor_weights_differ_from_per_channel_ones_by_rounding_alone(job: FaultJob) -> None:
    coarse = job.work / "coarse.onnx"
    assert seeded_faults.seeded(FAULTS["per-tensor weights"], good(job) / "model.onnx", coarse)
    batch = tiny_onnx.images(60)
    answers = [ort.open(p, threads=1).run(batch) for p in (good(job) / "model.onnx", coarse)]
    assert 0 < np.abs(answers[0] - answers[1]).max() < 1.0


def test_a_fault_of_int8_does_not_apply_to_a_float_file(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    for name in ("wrong zero point", "per-tensor weights", "wrapped fixed point"):
        assert not seeded_faults.seeded(FAULTS[name], model, tmp_path / "out.onnx")


def test_swapped_channels_turn_one_convolution_s_inputs_round(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx", channels=3)
    assert seeded_faults.seeded(FAULTS["swapped channels"], model, tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    before, after = tiny_onnx.weights(model), tiny_onnx.weights(tmp_path / "out.onnx")
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert len(changed) == 1
    assert np.array_equal(after[changed[0]], before[changed[0]][:, ::-1])


def test_the_table_counts_what_was_caught_missed_and_refused_in_error() -> None:
    rows = [
        FaultRow("a", "emulated", "", "passed", 700, "within the budget"),
        FaultRow("a", "emulated", "wrong mean", "parity", 700),
        FaultRow("a", "emulated", "transposed input", "missed", 700, "3 answers changed"),
        FaultRow("a", "emulated", "per-tensor weights", "no answer changed", 700),
        FaultRow("b", "estimated", "", "refused by parity", 700, "same winner on 40 %"),
        FaultRow("c", "compile-only", "", "not judged: no answers", 0),
    ]
    lines = target_faults.table(rows).splitlines()
    assert lines[0] == "a (emulated): good file passed within the budget"
    assert lines[1] == "    wrong mean               parity"
    assert lines[-1] == (
        "1 of 2 faults caught, 1 more changed no answer; 1 of 2 good files refused (n = 700 images "
        "each): b"
    )
