"""IREE devices: the compiler's flags for each, and how its file shows that it carries their code.

A compiler that ends well may have made a file for another machine: so the code is looked for in it,
by ELF's machine number, PTX's `.target` or SPIR-V's magic number.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fettle.errors import ModelError, TargetError
from fettle.hardware.runtimes import Estimate

_LLVM = (
    "--iree-opt-level=O2",
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
)
ELF = b"\x7fELF"
SPIRV = struct.pack("<I", 0x07230203)


@dataclass(frozen=True, slots=True, kw_only=True)
class IreeDevice:
    """An IREE device: its flags, and its code's mark: ELF's e_machine, or bytes.

    `runs_here`: what is compiled for it is loaded here, if only to see that it can be.
    """

    name: str
    flags: tuple[str, ...]
    elf_machine: int | None = None
    mark: bytes | None = None
    runs_here: bool = False


DEVICES = (
    IreeDevice(name="", flags=(*_LLVM, "--iree-llvmcpu-target-cpu=host"), runs_here=True),
    IreeDevice(
        name="arm64",
        flags=(
            *_LLVM,
            "--iree-llvmcpu-target-triple=aarch64-linux-gnu",
            "--iree-llvmcpu-target-cpu=cortex-a72",
        ),
        elf_machine=183,
        runs_here=True,
    ),
    IreeDevice(
        name="riscv64",
        flags=(
            *_LLVM,
            "--iree-llvmcpu-target-triple=riscv64-linux-gnu",
            "--iree-llvmcpu-target-cpu=generic-rv64",
            "--iree-llvmcpu-target-abi=lp64d",
            "--iree-llvmcpu-target-cpu-features=+m,+a,+f,+d,+c",
        ),
        elf_machine=243,
    ),
    IreeDevice(  # sm_90 is unknown to IREE 3.13: PTX of sm_80 runs on it
        name="cuda",
        flags=(
            "--iree-opt-level=O2",
            "--iree-hal-target-device=cuda",
            "--iree-cuda-target=sm_80",
        ),
        mark=b".target sm_80",
    ),
    IreeDevice(
        name="rocm",
        flags=(
            "--iree-opt-level=O2",
            "--iree-hal-target-device=hip",
            "--iree-rocm-target=gfx942",
        ),
        elf_machine=224,
    ),
    IreeDevice(
        name="vulkan",
        flags=(
            "--iree-opt-level=O2",
            "--iree-hal-target-device=vulkan",
            "--iree-vulkan-target=vp_android_baseline_2022",
        ),
        mark=SPIRV,
    ),
)


def named(name: str) -> IreeDevice:
    """Return a device's record; raises TargetError with the choices."""
    for device in DEVICES:
        if device.name == name:
            return device
    raise TargetError(
        "unknown device of IREE",
        got=f"'{name}'",
        rule=f"the choices are {', '.join(device.name for device in DEVICES if device.name)}, or "
        "none for this CPU",
        fix="name one of them in the target's record",
    )


def check_code(entry: Path, device: IreeDevice) -> None:
    """Raise ModelError where the compiled file carries no code of the device."""
    data = entry.read_bytes()
    found = elf_machines(data)
    if device.elf_machine is not None and found != {device.elf_machine}:
        got = f"ELF code of machine {', '.join(map(str, sorted(found))) or 'none'}"
        wanted = f"ELF code of machine {device.elf_machine} ({device.name})"
    elif device.mark is not None and device.mark not in data:
        got, wanted = f"a file without {device.mark!r}", f"the mark of {device.name}"
    else:
        return
    raise ModelError(
        f"IREE compiled for another machine than {device.name}",
        got=got,
        rule=f"the file carries {wanted}",
        fix="install the version this project is tested with: fettle targets install iree",
    )


def elf_machines(data: bytes) -> set[int]:
    """Collect the machine numbers of the ELF files that lie in `data`."""
    starts = [match.start() for match in re.finditer(re.escape(ELF), data)]
    headers = [data[start : start + 20] for start in starts]
    # 64-bit, little-endian, version 1: what follows the magic number by chance is no header
    whole = [head for head in headers if len(head) == 20 and head[4:7] == b"\x02\x01\x01"]
    return {struct.unpack("<H", head[18:20])[0] for head in whole}


def assembled(entry: Path) -> tuple[Estimate, ...]:
    """Assemble the PTX in a file by NVIDIA's ptxas: kernels, most registers, spilled bytes.

    Empty where ptxas is not here. Raises ModelError where it refuses the code.
    """
    tool = shutil.which("ptxas")
    if tool is None:
        return ()
    said = ""
    with tempfile.TemporaryDirectory() as folder:
        for index, text in enumerate(ptx(entry.read_bytes())):
            source = Path(folder) / f"{index}.ptx"
            source.write_bytes(text)
            command = [tool, "-v", "-arch=sm_80", str(source), "-o", f"{folder}/{index}.cubin"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said += done.stdout + done.stderr
            if done.returncode != 0:
                raise ModelError(
                    "NVIDIA's assembler refuses the code that IREE made",
                    got=(done.stderr.strip().splitlines() or ["no message"])[0][:300],
                    rule="ptxas -arch=sm_80 assembles it",
                    fix="drop this target (params.yaml: targets)",
                )
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", said)]
    spills = [int(count) for count in re.findall(r"(\d+) bytes spill stores", said)]
    figures = (
        ("kernels", len(registers), "kernels"),
        ("most registers of a kernel", max(registers, default=0), "registers"),
        ("spilled by a kernel at most", max(spills, default=0), "bytes"),
    )
    return tuple(
        Estimate(what=what, value=value, unit=unit, tool="ptxas, sm_80")
        for what, value, unit in figures
    )


def ptx(data: bytes) -> list[bytes]:
    """Cut the PTX texts out of a compiled file; each ends with a zero byte."""
    found = re.finditer(rb"//\n// Generated by LLVM NVPTX|\.version \d", data)
    starts = [match.start() for match in found]
    return [
        data[start : data.find(b"\0", start)] for start in starts if data[start : start + 1] == b"."
    ]
