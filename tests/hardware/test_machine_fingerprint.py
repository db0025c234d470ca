from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fettle.hardware import machine_fingerprint

X86 = """\
processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu sse2 fma avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu
"""
ARM = """\
processor\t: 0
Features\t: fp asimd asimddp i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def test_a_fingerprint_is_json_and_the_same_twice() -> None:
    found = machine_fingerprint.fingerprint()
    assert json.loads(json.dumps(found)) == found == machine_fingerprint.fingerprint()
    assert found["cores"] >= 1
    assert machine_fingerprint.differences(found, machine_fingerprint.fingerprint()) == []


def test_a_fingerprint_names_no_toolchain_so_that_installing_one_makes_nothing_stale() -> None:
    text = json.dumps(machine_fingerprint.fingerprint())
    assert set(machine_fingerprint.fingerprint()) == {
        "cpu",
        "flags",
        "cores",
        "os",
        "machine",
        "python",
    }
    assert not [name for name in ("onnxruntime", "openvino", "iree", "numpy") if name in text]


def test_the_flags_come_from_the_first_core_in_a_fixed_order(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(X86)
    cpu, flags = machine_fingerprint._linux(tmp_path / "cpuinfo")
    assert cpu == "Some CPU @ 2.00GHz"
    known = [flag for flag in machine_fingerprint.FLAGS if flag in flags]
    assert known == ["avx2", "fma", "avx512f", "avx512_vnni"]


def test_an_arm_core_is_named_by_its_part(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(ARM)
    cpu, flags = machine_fingerprint._linux(tmp_path / "cpuinfo")
    assert cpu == "0x41 0xd40"
    assert {"asimddp", "i8mm"} <= flags


def test_apples_answers_are_read_for_both_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (
        "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_DotProd: 1\n"
        "hw.optional.arm.FEAT_I8MM: 0\nmachdep.cpu.leaf7_features: AVX2 AVX512F\n"
    )
    done = subprocess.CompletedProcess([], 0, stdout=answer, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert machine_fingerprint._apple() == ("Apple M2", {"asimddp", "avx2", "avx512f"})


def test_differences_name_what_changed() -> None:
    there = {"cpu": "A", "cores": 8}
    assert machine_fingerprint.differences(there, {"cpu": "A", "cores": 2, "os": "Linux"}) == [
        "cores: 8 there, 2 here",
        "os: None there, Linux here",
    ]


def test_taking_a_fingerprint_imports_no_toolkit() -> None:
    heavy = ("numpy", "onnxruntime", "openvino", "torch")
    code = (
        "import sys; from fettle.hardware.machine_fingerprint import fingerprint; fingerprint(); "
        f"sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
