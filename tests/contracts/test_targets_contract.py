"""Every target record names a runtime that exists, and says what its precision needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fettle import plugins
from fettle.evaluation import target_refusal
from fettle.facts.export_facts import ExportFacts
from fettle.hardware.targets import EvidenceKind, Target

NAMES = plugins.names("targets")


def record(name: str) -> Target:
    target: Target = plugins.resolve("targets", name, where="targets").TARGET
    return target


def test_all_targets_are_found() -> None:
    assert set(NAMES) == {
        "amd_iree_fp32",
        "android_litert_int8",
        "arm64_iree_fp32",
        "arm64_ort_fp32",
        "arm64_ort_int8",
        "browser_ort_web_fp32",
        "browser_ort_web_int8",
        "ethos_u55_128",
        "ethos_u65_512",
        "ethos_u85_256",
        "fpga_hls4ml",
        "hexagon_qnn_int8",
        "javascript_ort_node_fp32",
        "javascript_ort_node_int8",
        "nvidia_iree_fp32",
        "nvidia_tensorrt_fp32",
        "nvidia_tensorrt_int8",
        "riscv64_iree_fp32",
        "vulkan_iree_fp32",
        "x86_iree_fp32",
        "x86_litert_fp32",
        "x86_litert_int8",
        "x86_openvino_bf16",
        "x86_openvino_fp32",
        "x86_openvino_int8",
        "x86_openvino_w4",
        "x86_ort_dynamic_int8",
        "x86_ort_fp32",
        "x86_ort_int8",
        "x86_ort_w16",
        "x86_ort_w4",
        "x86_ort_w8",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_targets_runtime_is_a_file(name: str) -> None:
    assert record(name).runtime in plugins.names("runtimes")


@pytest.mark.parametrize("name", NAMES)
def test_int8_has_a_dialect_and_what_computes_in_float_has_none(name: str) -> None:
    target = record(name)
    assert (target.dialect is None) == (target.precision not in ("int8", "fixed"))


@pytest.mark.parametrize("name", NAMES)
def test_a_target_of_this_cpu_is_named_after_its_runtime_and_precision(name: str) -> None:
    target = record(name)
    if target.family == "x86 CPU":
        assert name.endswith(f"_{target.runtime}_{target.precision}")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_never_timed_says_what_answers_it(name: str) -> None:
    target = record(name)
    runtime = plugins.resolve("runtimes", target.runtime, where=name)
    if target.evidence in ("emulated", "estimated"):
        assert runtime.ANSWERED_BY
    if target.evidence != "measured":
        assert target.next_command != "fettle run"


@pytest.mark.parametrize("name", NAMES)
def test_a_target_says_what_machine_it_needs_and_how_wide_it_computes(name: str) -> None:
    target = record(name)
    assert target.machine
    assert all(one for one in (target.hardware, *target.machine))
    assert target.channel_multiple >= 1
    assert target.channel_multiple & (target.channel_multiple - 1) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_target_says_its_family_its_evidence_and_what_its_owner_runs_next(name: str) -> None:
    target = record(name)
    assert target.family
    assert target.evidence in ("measured", "emulated", "estimated", "compile-only")
    assert target.next_command


@pytest.mark.parametrize("evidence", ["emulated", "estimated", "compile-only"])
def test_what_is_never_timed_needs_no_machine_of_its_own(evidence: EvidenceKind) -> None:
    board = replace(record("x86_ort_fp32"), machine=("a board",), evidence=evidence)
    timed = replace(board, evidence="measured")
    made = ExportFacts(
        target="board", hardware="a board", runtime="ort", version="1", precision="fp32",
        dialect=None, entry="model.onnx",
    )  # fmt: skip
    assert target_refusal.unavailable_reason("board", board, made) is None
    assert "board runs on x86 CPU (a board)" in str(
        target_refusal.unavailable_reason("board", timed, made)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_data_without_code(name: str) -> None:
    path = plugins.folder_path("targets") / f"{name}.py"
    text = path.read_text()
    assert "def " not in text
    assert text.count("import ") == 1
    assert plugins.summary("targets", name).endswith(".")


def test_the_plain_target_is_there() -> None:
    """Every other is held against the compressed fp32 form under ONNX Runtime."""
    plain = [n for n in NAMES if (record(n).runtime, record(n).precision) == ("ort", "fp32")]
    assert len(plain) == 1
