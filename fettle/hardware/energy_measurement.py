"""Energy measurement by the kernel's counters (RAPL), where it has any; never an estimate.

Linux keeps Intel's and AMD's RAPL counters under /sys/class/powercap as whole microjoules since
some start, which wrap at max_energy_range_uj. Virtual machines and arm boards have none, and since
2020 (CVE-2020-8694) only root may read them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fettle.errors import TargetError
from fettle.measure import Measure

POWERCAP = Path("/sys/class/powercap")
MICRO = 1e-6


def counters(root: Path = POWERCAP) -> list[Path]:
    """List the folders of the packages' counters that may be read; cores are part of a package."""
    folders = []
    for folder in sorted(root.glob("*rapl:*")):
        try:
            int((folder / "energy_uj").read_text())
            package = (folder / "name").read_text().startswith("package")
        except (OSError, ValueError):
            continue
        if package:
            folders.append(folder)
    return folders


def check(root: Path = POWERCAP) -> None:
    """Raise TargetError where no counter can be read: the energy is then NOT_MEASURED."""
    if not counters(root):
        raise TargetError(
            "compress.objective.minimise: energy cannot be measured here (NOT_MEASURED)",
            got=f"no energy counter that may be read under {root}",
            rule="energy_j is read from the processor's RAPL counters, and never estimated",
            fix="run on bare metal as a user who may read energy_uj, or minimise latency_p50_ms",
        )


def measure(run: Callable[[], object], *, images: int, root: Path = POWERCAP) -> Measure:
    """Run `run` `images` times and return the joules of one, the idle machine's share included.

    Raises TargetError without a counter.
    """
    check(root)
    folders = counters(root)
    before = [_read(folder) for folder in folders]
    for _ in range(images):
        run()
    used = sum(_since(folder, start) for folder, start in zip(folders, before, strict=True))
    return Measure(value=MICRO * used / images, unit="J", n=images)


def _since(folder: Path, start: int) -> int:
    """Return the microjoules since `start`; the counter may have wrapped once."""
    used = _read(folder) - start
    return used if used >= 0 else used + int((folder / "max_energy_range_uj").read_text())


def _read(folder: Path) -> int:
    return int((folder / "energy_uj").read_text())
