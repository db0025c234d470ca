"""Node packages of a toolchain: put beside this machine's Node.js by npm, from a lock with hashes.

`npm ci` takes what package-lock.json names and checks its integrity hashes. No package's own
install script is run: onnxruntime-node's fetches CUDA parts from elsewhere, and its library for the
CPU is in the package already.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from fettle.errors import TargetError

OLDEST = 20  # what it was tried with
INSTALL = "install Node.js 20 or newer with npm (Debian: apt-get install nodejs npm)"


def install(lock: Path, place: Path, run: Callable[[Sequence[str], Path], None]) -> dict[str, str]:
    """Put the lock's packages into `place`, and Node.js as bin/node; return {package: version}."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node is not None  # check_node was asked first
    assert npm is not None
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "node").symlink_to(Path(node).resolve())
    document = json.loads(lock.read_text())
    (place / "package.json").write_text(json.dumps(document["packages"][""]) + "\n")
    shutil.copyfile(lock, place / "package-lock.json")
    run([npm, "ci", "--prefix", str(place), "--ignore-scripts", "--no-audit", "--no-fund"], place)
    return {
        path.rpartition("node_modules/")[2]: package["version"]
        for path, package in document["packages"].items()
        if path
    }


def node_version() -> str:
    """Ask this machine's Node.js for its version; "" where there is none."""
    node = shutil.which("node")
    if node is None:
        return ""
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("v")


def check_node(title: str) -> None:
    """Raise TargetError where Node.js or npm is missing, or too old."""
    version = node_version()
    major = re.match(r"\d+", version)
    if major is None or int(major[0]) < OLDEST or shutil.which("npm") is None:
        raise TargetError(
            f"{title} needs Node.js and npm",
            got=f"Node.js {version or 'not found'}, npm {shutil.which('npm') or 'not found'}",
            rule=f"Node.js {OLDEST} or newer runs it",
            fix=INSTALL,
        )
