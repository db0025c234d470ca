"""Machine fingerprint, to tell one from another: a latency is a fact about a machine and its flags.

`fingerprint()` is written to inputs/machine.json before DVC is asked, so that a figure measured
elsewhere is never restored from the cache as if it were this machine's. It imports no toolkit and
takes a few milliseconds. Toolchain versions stand elsewhere (fettle/hardware/toolchain_facts.py):
here one more toolchain would make every measurement stale.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

# Instructions that change which kernels run: x86 first, then Arm (asimddp is the int8 dot product).
FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
)
# Apple's names of the same features (`sysctl hw.optional.arm`).
APPLE = {
    "FEAT_DotProd": "asimddp",
    "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16",
    "FEAT_FP16": "asimdhp",
}


class MachineFingerprint(TypedDict):
    """Machine fingerprint, as inputs/machine.json holds it; `cores` are those usable here."""

    cpu: str
    flags: list[str]
    cores: int
    os: str
    machine: str
    python: str


def fingerprint() -> MachineFingerprint:
    """Describe this machine: plain JSON, equal as long as latencies stay comparable."""
    cpu, flags = _apple() if platform.system() == "Darwin" else _linux(Path("/proc/cpuinfo"))
    return {
        "cpu": cpu or platform.processor() or "unknown",
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": _cores(),
        "os": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def differences(recorded: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """List what differs between two fingerprints, as "cores: 8 there, 2 here"."""
    return [
        f"{key}: {recorded.get(key)} there, {here.get(key)} here"
        for key in sorted(recorded.keys() | here.keys())
        if recorded.get(key) != here.get(key)
    ]


def _cores() -> int:
    """Count the logical cores this process may use, not those the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _linux(cpuinfo: Path) -> tuple[str, set[str]]:
    """Read model and flags of the first core; Arm kernels name a part number, not a model."""
    if not cpuinfo.is_file():
        return "", set()
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    part = f"{fields.get('CPU implementer', '')} {fields.get('CPU part', '')}".strip()
    listed = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or part, set(listed.split())


def _apple() -> tuple[str, set[str]]:
    """Ask sysctl once for the brand, x86's feature lists and Arm's feature switches."""
    keys = ["machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
    arm = [f"hw.optional.arm.{name}" for name in APPLE]
    answer = subprocess.run(
        ["/usr/sbin/sysctl", *keys, *arm], capture_output=True, text=True, check=False
    )  # keys of the other architecture are reported on stderr and left out
    fields = dict(line.split(": ", 1) for line in answer.stdout.splitlines() if ": " in line)
    flags = {
        word.lower().replace(".", "_") for key in keys[1:] for word in fields.get(key, "").split()
    }
    flags |= {APPLE[key.rpartition(".")[2]] for key in arm if fields.get(key) == "1"}
    return fields.get(keys[0], ""), flags
