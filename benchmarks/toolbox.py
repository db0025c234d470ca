"""Make the environments of the tools we are held against, and ask them over JSON.

A rival (NNCF, Neural Compressor, …) is never a dependency of the product: it gets a venv of its
own under .fettle/bench/venvs, installed once from PyPI, and runs there as a script that reads one
JSON object on stdin and prints one JSON object as its last line.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def ask(
    python: Path, script: Path, request: Mapping[str, Any], *, threads: int = 1
) -> dict[str, Any]:  # Any: JSON
    """Run `script` in another environment; return the JSON object it prints as its last line.

    Raises RuntimeError with the end of its stderr when it fails.
    """
    pinned = {f"{key}_NUM_THREADS": str(threads) for key in ("OMP", "MKL", "OPENBLAS")}
    done = subprocess.run(
        [str(python), str(script)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **pinned, "PYTHONPATH": ""},
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script.name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
