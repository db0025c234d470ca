"""How the evaluate stage takes its times, energy, profile and the answers without VNNI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_stage import exported, here, int8, plain, run, wide_project
from tiny_project import TinyProject

from fettle.hardware import energy_measurement, latency_measurement
from fettle.hardware.runtimes import openvino
from stages import evaluate


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return wide_project(tmp_path)


def test_the_models_are_timed_in_the_same_rounds(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(project)
    calls: list[tuple[tuple[str, ...], int]] = []
    real = latency_measurement.interleave

    def spy(contenders: Any, *, rounds: int, seed: int) -> dict[str, latency_measurement.Times]:
        calls.append((tuple(sorted(contenders)), rounds))
        return real(contenders, rounds=rounds, seed=seed)

    monkeypatch.setattr(latency_measurement, "interleave", spy)
    run(project, "x86_ort_fp32")
    floats = ["float_openvino"] if openvino.available().ok else []
    assert calls == [
        (("baseline", "candidate", *floats, "plain"), 20),
        (("baseline", "candidate"), 20),
        (
            ("baseline", "baseline_unoptimised", "candidate", "candidate_unoptimised"),
            20,
        ),
    ]


def test_energy_is_measured_where_counted_and_else_said_not_to_be(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain(project)
    package = tmp_path / "power" / "intel-rapl:0"
    package.mkdir(parents=True)
    real = energy_measurement.measure
    monkeypatch.setattr(
        energy_measurement,
        "measure",
        lambda run, *, images: real(run, images=images, root=package.parent),
    )
    outputs = run(project, "x86_ort_fp32")
    assert "energy_j" not in outputs.measures
    assert outputs.facts.energy == (
        f"NOT_MEASURED: no energy counter that may be read under {package.parent}"
    )
    (package / "name").write_text("package-0\n")
    (package / "energy_uj").write_text("5\n")
    outputs = run(project, "x86_ort_fp32")
    assert outputs.facts.energy is None
    assert outputs.measures["energy_j"].n == evaluate.ENERGY_IMAGES


def test_more_rounds_are_taken_up_to_a_bound_while_the_speed_up_is_in_doubt(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(project)
    rounds_taken: list[int] = []

    def alike(contenders: Any, *, rounds: int, seed: int) -> dict[str, latency_measurement.Times]:
        rounds_taken.append(rounds)
        rng = np.random.default_rng(seed)
        return {name: 1 + rng.random(rounds) for name in contenders}

    monkeypatch.setattr(latency_measurement, "interleave", alike)
    outputs = run(project, "x86_ort_fp32")
    assert rounds_taken == [20, 40, 120, 20, 20]
    assert outputs.measures["speedup_over_best_float"].n == 180
    assert outputs.measures["speedup_by_optimisation"].n == 20  # no further look is taken at it
    assert outputs.facts.verdict == "refused"


def test_the_best_float_runtime_is_the_one_to_beat(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(project)
    levels = {"baseline": 5.0, "candidate": 2.0, "plain": 2.0, "float_openvino": 1.0}
    levels |= {"baseline_unoptimised": 7.5, "candidate_unoptimised": 2.5}

    def as_said(contenders: Any, *, rounds: int, seed: int) -> dict[str, latency_measurement.Times]:
        del seed
        return {name: np.full(rounds, levels[name]) for name in contenders}

    monkeypatch.setattr(latency_measurement, "interleave", as_said)
    if not openvino.available().ok:
        pytest.skip("needs openvino")
    outputs = run(project, "x86_ort_fp32")
    assert outputs.facts.best_float == "openvino"
    assert outputs.measures["best_float_latency_p50_ms"].value == 1.0
    # graph optimisation's gain is told apart from compression's: 5 / 2 = 7.5 / 2.5 * 1.25 / 1.5
    optimised = {
        name: outputs.measures[name].value
        for name in (
            "baseline_speedup_by_optimisation",
            "speedup_by_optimisation",
            "speedup_unoptimised",
            "speedup",
        )
    }
    assert list(optimised.values()) == [1.5, 1.25, 3.0, 2.5]
    assert outputs.facts.reason.startswith(
        "not shown to be faster: 0.50x (0.50 to 0.50) the speed of the float model in openvino, "
    )


def test_where_the_time_goes_is_written_before_and_after(project: TinyProject) -> None:
    int8(project)
    run(project, "x86_ort_int8")
    doc = json.loads((project.root / "profile.json").read_text())
    assert doc["before"]["int8_share"] == 0
    assert doc["after"]["int8_share"] > 0
    assert sum(kind["ms"] for kind in doc["after"]["kinds"]) == pytest.approx(doc["after"]["ms"])


def test_int8_is_also_scored_as_a_cpu_without_vnni_answers(project: TinyProject) -> None:
    int8(project)
    outputs = run(project, "x86_ort_int8")
    facts = outputs.facts.without_vnni
    assert (facts.images, facts.loses) == (60, False)
    assert facts.agreement > 0.9
    assert outputs.measures["accuracy_without_vnni"].n == 60
    assert facts.reason.startswith("on x86 without VNNI no loss is shown (")


def test_a_model_too_large_to_emulate_says_so(project: TinyProject) -> None:
    int8(project)
    exported(project, "x86_ort_int8", macs=10**9)
    outputs = run(project, "x86_ort_int8")
    without = outputs.facts.without_vnni
    assert without.to_json() == {"reason": "not measured: only 1 images, it takes 32"}
    assert "accuracy_without_vnni" not in outputs.measures
