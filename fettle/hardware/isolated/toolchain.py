"""Isolated toolchain: its record; its environment, worker and session are beside.

For a toolchain too heavy, or too much at odds with the others, to be installed beside them.

    toolchain_environment.py   the locked environment: where it lies, whether it is whole, making it
    debian_packages.py         Debian packages that it is made of beside its lock, without root
    emulated_python.py         one whose Python is another machine's, run by qemu-user
    isolated_worker.py         a subprocess in it: JSON in, one JSON line out, limits, killed as a
                               group
    worker_harness.py          what that subprocess runs; standard library and numpy only
    isolated_session.py        open, run, time and measure a model that lives in a worker
    locks/                     requirements with hashes, a file each (`python tools/lock.py --help`)
    scripts/                   what the toolchain itself does, a file each, run by the harness

Such a runtime offers `TOOLCHAIN` beside what every runtime offers; fettle/hardware/runtimes/iree.py
shows how. Nothing is ever installed by a run: only `fettle targets install NAME` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).resolve().parent
GIB = 1 << 30
# Toolchains hand paths to a shell unquoted: IREE 3.13 called its linker so, from a folder with a
# space, a quote or a dollar in its name; "%20" failed as well.
PLAIN_PATH = re.compile(r"[\w/.,+@:=~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one call: wall time, and resident memory of the whole process group.

    Memory is looked at in /proc; where there is none, only the time is held.
    """

    seconds: float = 900.0  # IREE took 7 s for EfficientNet-Lite0: slow machines, larger models
    memory_bytes: int = 8 * GIB  # the same compile took 0.6 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackages:
    """Debian packages that are unpacked into one folder of the environment, without root.

    `architecture` is Debian's name of it; empty for this machine's own.
    """

    packages: tuple[str, ...]
    folder: str
    architecture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedPython:
    """A Python of another machine, that qemu-user runs; see emulated_python.py.

    `machine` is qemu's name of it and wheels', `wheel_tags` the platforms whose wheels it takes.
    """

    machine: str
    version: str
    wheel_tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """The interpreter's file."""
        return f"python{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPackages:
    """Packages of the lock that are also unpacked as built for another machine, for an emulator.

    `platforms` are the wheels' tags, the newest first. They lie in the environment's `foreign`.
    """

    packages: tuple[str, ...]
    platforms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """A toolchain with an environment of its own. `requirements` is what its lock is made of.

    `interpreter` runs its script: Python in an environment made by pip, or this machine's Node.js
    with packages that npm put beside it (`requirements` are then NAME@VERSION).
    `pythons` are the oldest and the newest Python its packages have wheels for, `platforms` the
    machines as (sys.platform, platform.machine()) pairs, empty where any will do. `debian` are
    packages that it needs beside them; with `emulated` its Python is another machine's, of
    packages in the folder "sysroot", run by the qemu-user-static in the folder "qemu". What it
    costs is measured with a cold cache on Linux x86, and said before anything is installed.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    pythons: tuple[tuple[int, int], tuple[int, int]]
    download_mb: int
    disk_mb: int
    minutes: int
    platforms: tuple[tuple[str, str], ...] = ()
    foreign: ForeignPackages | None = None
    interpreter: Literal["python", "node"] = "python"
    limits: Limits = Limits()
    debian: tuple[DebianPackages, ...] = ()
    emulated: EmulatedPython | None = None
    shared_script: str = ""  # the name of a script that serves several toolchains
    folder: Path = HERE

    @property
    def lock(self) -> Path:
        """The pinned requirements with their hashes."""
        ending = "txt" if self.interpreter == "python" else "package-lock.json"
        return self.folder / "locks" / f"{self.name}.{ending}"

    @property
    def script(self) -> Path:
        """What the worker runs in the toolchain's environment."""
        return self.folder / "scripts" / f"run_{self.shared_script or self.name}.{self._ending}"

    @property
    def harness(self) -> Path:
        """What serves the script to this process."""
        return HERE / f"worker_harness.{self._ending}"

    @property
    def _ending(self) -> str:
        return "py" if self.interpreter == "python" else "mjs"
