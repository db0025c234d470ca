"""Write requirements.lock: the whole stack pinned, one resolution for every supported platform.

Run by `make lock` (needs uv). What is pinned already keeps its version, so that a new dependency
changes its own lines only; `python tools/lock.py --upgrade` lets all of them move. Torch keeps its
version but no hash, and its CUDA closure is left out: with them a set-up would fetch gigabytes
where there is no GPU. tools/bootstrap.py installs torch first, as a CPU build where there is no
GPU.

`python tools/lock.py --toolchain NAME` writes fettle/hardware/isolated/locks/NAME.txt instead, from
the requirements of the `TOOLCHAIN` in fettle/hardware/runtimes/NAME.py.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fettle.hardware.isolated.toolchain import Toolchain

ROOT = Path(__file__).resolve().parent.parent
# nvidia-ml-py is a small pure-Python package that BentoML needs; the rest is torch's closure.
CUDA = re.compile(r"^(nvidia-(?!ml-py)|cuda-|triton==)")
# uv repeats the whole list of supported platforms (pyproject's [tool.uv]) on every line.
PLATFORMS = (
    "((platform_machine == 'arm64' and sys_platform == 'darwin') or (platform_machine == 'aarch64' "
    "and sys_platform == 'linux') or (platform_machine == 'x86_64' and sys_platform == 'linux'))"
)
PYTHONS = "python_full_version < '3.15'"
HEAD = """\
# Made by `make lock`; edit pyproject.toml instead. Linux x86/arm and macOS arm, Python >= 3.11.
# torch carries no hash and no CUDA packages on purpose: see tools/lock.py.
"""


def main() -> None:
    """Write the lock of the stack, or of the toolchain that is named."""
    if sys.argv[1:2] == ["--toolchain"]:
        lock_toolchain(*sys.argv[2:])
    else:
        lock_stack()


def lock_toolchain(name: str, *more: str) -> None:
    """Resolve a toolchain's requirements for every platform and write its lock, with hashes."""
    sys.path.insert(0, str(ROOT))
    toolchain = importlib.import_module(f"fettle.hardware.runtimes.{name}").TOOLCHAIN
    if toolchain.interpreter == "node":
        lock_node_packages(toolchain)
        return
    oldest = ".".join(map(str, toolchain.pythons[0]))
    # the worker's harness needs numpy, whatever the toolchain itself requires
    only = " or ".join(
        f"(sys_platform == '{system}' and platform_machine == '{machine}')"
        for system, machine in toolchain.platforms
    )
    ends = f" ; {only}\n" if only else "\n"
    asked = "".join(f"{requirement}{ends}" for requirement in [*toolchain.requirements, "numpy"])
    where, python = ["--universal", "--python-version", oldest], f"Python >= {oldest}"
    if toolchain.emulated:  # pip reads a marker by the Python that runs it, not by the emulated one
        machine = f"{toolchain.emulated.machine}-{toolchain.emulated.wheel_tags[0]}"
        where = ["--python-platform", machine, "--python-version", toolchain.emulated.version]
        python = f"Python {toolchain.emulated.version}, {toolchain.emulated.machine}"
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "-", *where),
        *("--generate-hashes", "--no-header", "--no-annotate", "--quiet", *more),
    ]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    head = (
        f"# Made by `python tools/lock.py --toolchain {name}`; edit TOOLCHAIN in\n"
        f"# fettle/hardware/runtimes/{name}.py instead. {python}.\n"
    )
    toolchain.lock.write_text(head + shorten(done.stdout))


def lock_node_packages(toolchain: Toolchain) -> None:
    """Resolve a toolchain's npm packages and write its package-lock.json, with integrity hashes."""
    asked = dict(requirement.rsplit("@", 1) for requirement in toolchain.requirements)
    with tempfile.TemporaryDirectory() as folder:
        package = {"name": toolchain.name, "private": True, "dependencies": asked}
        (Path(folder) / "package.json").write_text(json.dumps(package))
        # no address of the registry that happened to be asked
        plain = ("--omit-lockfile-registry-resolved", "--no-audit", "--no-fund")
        command = ("npm", "install", "--package-lock-only", "--ignore-scripts", *plain)
        subprocess.run([*command, "--silent"], cwd=folder, check=True)
        shutil.copyfile(Path(folder) / "package-lock.json", toolchain.lock)


def lock_stack() -> None:
    """Resolve pyproject.toml with all extras and write the lock."""
    lock = ROOT / "requirements.lock"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "requirements.lock"
        if lock.is_file():
            shutil.copyfile(lock, out)  # uv keeps what it finds in its output file
        # not the libraries of networks, which follow torch
        command = [
            *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml"),
            *(f"--extra={extra}" for extra in ("train", "openvino", "dev")),
            *("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"),
            *("--no-annotate", "--quiet", "--output-file", str(out), *sys.argv[1:]),
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        lock.write_text(HEAD + strip_cuda(shorten(out.read_text())))


def shorten(lock: str) -> str:
    """Drop the parts of the markers that hold on every supported platform."""
    for noise in (f" ; {PYTHONS} and {PLATFORMS}", f" and {PYTHONS}", f" and {PLATFORMS}"):
        lock = lock.replace(noise, "")
    return lock


def strip_cuda(lock: str) -> str:
    """Drop torch's CUDA closure and torch's own hashes from a lock's text."""
    kept: list[str] = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock.strip()):
        if CUDA.match(block):
            continue
        kept.append(block.split(" ")[0] if block.startswith("torch==") else block)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    main()
