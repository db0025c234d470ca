"""IREE for other machines for real: arm64 is run under qemu-user, the rest is looked into."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import tiny_onnx

from fettle.errors import ModelError, TargetError
from fettle.hardware.isolated import iree_devices, toolchain_environment
from fettle.hardware.runtimes import CompileRequest, iree, ort

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    toolchain_environment.install(iree.TOOLCHAIN, say=sys.stderr.write)


def compiled(folder: Path, device: str, *, precision: str = "fp32") -> tuple[Path, Path]:
    model = tiny_onnx.classifier(folder / "given.onnx", width=32)
    asked = CompileRequest(device=device, precision=precision, dialect=None)
    return model, folder / iree.compile_for(model, folder, request=asked)


def test_arm64_answers_as_onnx_runtime_does_in_one_run_of_the_emulator(tmp_path: Path) -> None:
    there = iree.available_for("arm64")
    if not there.ok:
        pytest.skip(f"needs {there.reason}: {there.install}")
    model, entry = compiled(tmp_path, "arm64")
    batch = tiny_onnx.images(64)
    session = iree.open(entry, threads=1)
    wanted = ort.open(model, threads=1).run(batch)
    assert session.run(batch) == pytest.approx(wanted, abs=1e-4)
    assert session.run(batch[:1]) == pytest.approx(wanted[:1], abs=1e-4)


@pytest.mark.parametrize(("device", "machine"), [("arm64", 183), ("riscv64", 243), ("rocm", 224)])
def test_the_code_in_the_file_is_of_the_machine(tmp_path: Path, device: str, machine: int) -> None:
    if not iree.available_for(device).ok:
        pytest.skip(f"needs {iree.available_for(device).reason}")
    _, entry = compiled(tmp_path, device)
    assert iree_devices.elf_machines(entry.read_bytes()) == {machine}


@pytest.mark.parametrize(
    ("device", "mark"), [("cuda", b".target sm_80"), ("vulkan", iree_devices.SPIRV)]
)
def test_a_gpu_s_code_is_in_the_file(tmp_path: Path, device: str, mark: bytes) -> None:
    _, entry = compiled(tmp_path, device)
    assert mark in entry.read_bytes()


def test_nvidia_s_assembler_takes_the_code_and_says_what_it_needs(tmp_path: Path) -> None:
    if shutil.which("ptxas") is None:
        pytest.skip("needs ptxas: it comes with NVIDIA's CUDA toolkit")
    _, entry = compiled(tmp_path, "cuda")
    figures = {one.what: one.value for one in iree.estimates(entry)}
    assert figures["kernels"] >= 1
    assert 0 < figures["most registers of a kernel"] <= 255
    assert figures["spilled by a kernel at most"] >= 0


def test_a_file_for_another_machine_is_refused_by_the_device_s_mark(tmp_path: Path) -> None:
    _, entry = compiled(tmp_path, "riscv64")
    with pytest.raises(ModelError) as caught:
        iree_devices.check_code(entry, iree_devices.named("arm64"))
    assert str(caught.value).startswith(
        "IREE compiled for another machine than arm64: got ELF code of machine 243; the file "
        "carries ELF code of machine 183 (arm64)."
    )


def test_int8_and_an_unknown_device_are_refused_before_compiling(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^IREE is asked for 32-bit floats only here: got a t"):
        compiled(tmp_path, "cuda", precision="int8")
    with pytest.raises(TargetError, match=r"^unknown device of IREE: got 'metal'; the choices ar"):
        compiled(tmp_path, "metal")
