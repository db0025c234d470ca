"""Peak memory of a model: what loading and running it adds to its runtime alone.

Measured in a fresh process, which this file is as well (`python -m fettle.hardware.peak_memory`):
there the runtime is imported, the baseline read, then the model loaded and run. The child prints
bytes.
"""

from __future__ import annotations

import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from fettle.errors import OurFault
from fettle.measure import Measure

STATUS = Path("/proc/self/status")
RUNS = 3  # the arena reaches its size on the first run; two more show that it stays
# The runtime that the caller names, which it has loaded itself (see
# fettle/staleness/reachability.py).
IMPORTS_BY_NAME: tuple[str, ...] = ()


def peak(*, runtime: str, entry: Path, threads: int, shape: tuple[int, ...]) -> Measure:
    """Return the bytes that `entry` adds at its peak, for a batch of `shape` [N, C, H, W].

    `runtime` is a module that offers open(entry, threads=…), e.g. "fettle.hardware.runtimes.ort".
    Raises OurFault when the child dies. One with an environment of its own measures in that, in a
    fresh worker, by its `peak_bytes`, and raises ModelError.
    """
    module = importlib.import_module(runtime)
    if hasattr(module, "peak_bytes"):
        added = module.peak_bytes(entry, threads=threads, shape=shape)
        return Measure(value=float(added), unit="bytes", n=1)
    command = [
        sys.executable,
        "-P",
        "-m",
        "fettle.hardware.peak_memory",
        runtime,
        str(entry),
        str(threads),
    ]
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.run(
        [*command, *map(str, shape)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if child.returncode != 0:
        raise OurFault(
            f"the memory of {entry.name} could not be measured",
            got=(child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1],
            fix="run the stage again, and report it when it fails again",
        )
    return Measure(value=float(child.stdout.split()[-1]), unit="bytes", n=1)


def added_bytes(runtime: str, entry: Path, threads: int, shape: tuple[int, ...]) -> int:
    """Load and run the model in this process; return the peak above the runtime's own memory."""
    module = importlib.import_module(runtime)
    module.toolkit()
    batch = np.zeros(shape, dtype=np.float32)
    before = _peak_bytes()  # importing leaves no peak above itself: looked at
    session = module.open(entry, threads=threads)
    for _ in range(RUNS):
        session.run(batch)
    return max(0, _peak_bytes() - before)


def _peak_bytes() -> int:
    """Read the largest resident size so far.

    Not ru_maxrss on Linux: a child inherits its parent's there, across exec.
    """
    if STATUS.is_file():
        line = next(x for x in STATUS.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak_size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_size if sys.platform == "darwin" else peak_size * 1024


if __name__ == "__main__":
    _runtime, _entry, _threads, *_shape = sys.argv[1:]
    _bytes = added_bytes(_runtime, Path(_entry), int(_threads), tuple(map(int, _shape)))
    sys.stdout.write(f"{_bytes}\n")
