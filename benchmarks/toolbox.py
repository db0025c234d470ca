"""Make the environments of the tools we are held against; fettle's isolated worker asks them.

A rival (NNCF, Neural Compressor, …) is never a dependency of the product: it gets a venv of its
own under .fettle/hardware/venvs, installed once from PyPI from pins instead of a lock.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / ".fettle" / "bench"


def venv(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of a venv that holds exactly these requirements, made when missing.

    Pin them ("nncf==2.17.0"): the folder is named after them, so a change makes a new one.
    """
    digest = hashlib.sha256("\n".join([sys.version, *sorted(requirements)]).encode()).hexdigest()
    folder = BENCH / "venvs" / f"{name}-{digest[:8]}"
    python = folder / "bin" / "python"
    if (folder / "complete").is_file():
        return python
    print(f"making the environment of {name}: {', '.join(requirements)}", file=sys.stderr)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--clear", "-p", sys.executable, str(folder)], check=True)
    subprocess.run([*uv, "pip", "install", "-q", "-p", str(python), *requirements], check=True)
    (folder / "complete").touch()
    return python
