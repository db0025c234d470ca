"""Make .venv from requirements.lock: `make setup`. Standard library only; safe to run again.

Torch comes first, by pip: the CPU build where no NVIDIA GPU answers, else the default build. The
rest comes by uv from the lock, with hashes checked, in seconds once its cache is warm.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "fettle.stamp"
UV = "uv==0.13.9"
# PyTorch's own index of CPU builds, asked only when pip cannot see a CPU build by itself.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Measured with a cold cache on Linux x86 (CPU build of torch 192 MB; the rest of the lock).
DOWNLOAD_MB = {"cpu": 800, "cuda": 3500}
DISK_GB = {"cpu": 2.5, "cuda": 8.0}


def main() -> None:
    """Bring .venv in step with the lock, or say in a blink that it is."""
    if sys.version_info < (3, 11):  # noqa: UP036  an older Python may well be the one at hand
        sys.exit(
            f"setup: Python {platform.python_version()} is too old; fettle needs 3.11 or newer"
        )
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    kind = "cuda" if has_gpu() else "cpu"
    count = len(re.findall(r"(?m)^[A-Za-z0-9][^ ]*==", lock()))
    say(
        f"{count} packages from requirements.lock and the {kind.upper()} build of torch: about "
        f"{DOWNLOAD_MB[kind]} MB to download (less with a warm cache), {DISK_GB[kind]} GB on disk"
    )
    STAMP.unlink(missing_ok=True)
    if not (VENV / "bin" / "python").exists():
        run([sys.executable, "-m", "venv", str(VENV)])
    pip("install", "--quiet", UV)
    install_torch(kind)
    uv("install", "--quiet", "--compile-bytecode", "-r", "requirements.lock")
    uv("install", "--quiet", "--no-deps", "--no-build-isolation", "-e", ".")
    make_key()
    STAMP.write_text(wanted)
    say(f"done in {time.monotonic() - started:.0f} s")


def fingerprint() -> str:
    """Digest what the environment is made from."""
    text = lock() + (ROOT / "pyproject.toml").read_text() + platform.python_version() + str(ROOT)
    return hashlib.sha256(text.encode()).hexdigest()


def lock() -> str:
    """Read the lock."""
    return (ROOT / "requirements.lock").read_text()


def has_gpu() -> bool:
    """Tell whether an NVIDIA driver answers."""
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0


def install_torch(kind: str) -> None:
    """Install the locked torch; without a GPU on Linux never the default build of 3 GB."""
    match = re.search(r"(?m)^torch==(\S+)", lock())
    if match is None:
        sys.exit("setup: requirements.lock names no torch; make it again with `make lock`")
    pin = f"torch=={match[1]}"
    if kind == "cuda" or sys.platform == "darwin":
        pip("install", "--quiet", pin)
        return
    cpu = f"{pin}+cpu"
    if pip("install", "--quiet", cpu, check=False):
        return
    say(f"fetching {cpu} from PyTorch's index of CPU builds")
    pip("install", "--quiet", cpu, "--extra-index-url", TORCH_CPU_INDEX)


def make_key() -> None:
    """Make the server's API key (a 0600 file) unless there is one; show how to use it."""
    code = (
        "from fettle.adapters import bento_store\n"
        "new = not bento_store.key_path().is_file()\n"
        "path = bento_store.make_key()\n"
        "print(f'the API key of your servers is in {path}; once one is up, try\\n  '"
        " + bento_store.curl_line(port=3000)) if new else None\n"
    )
    run([str(VENV / "bin" / "python"), "-c", code])


def pip(*command: str, check: bool = True) -> bool:
    """Run the environment's pip; quietly when a failure is expected."""
    full = [str(VENV / "bin" / "python"), "-m", "pip", *command]
    done = subprocess.run(full, cwd=ROOT, env=clean(), check=False, capture_output=not check)
    if check and done.returncode != 0:
        sys.exit(f"setup: `pip {' '.join(command)}` failed; the lines above say why")
    return done.returncode == 0


def uv(*command: str) -> None:
    """Run uv's pip on the environment."""
    full = [str(VENV / "bin" / "python"), "-m", "uv", "pip", *command]
    if subprocess.run(full, cwd=ROOT, env=clean(), check=False).returncode != 0:
        sys.exit(f"setup: `uv pip {' '.join(command)}` failed; the lines above say why")


def run(command: list[str]) -> None:
    """Run a command or stop."""
    if subprocess.run(command, cwd=ROOT, env=clean(), check=False).returncode != 0:
        sys.exit(f"setup: `{' '.join(command[:4])} …` failed; the lines above say why")


def clean() -> dict[str, str]:
    """Return the environment without the switches that would slow or misdirect an install."""
    drop = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME"}
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return {**kept, "VIRTUAL_ENV": str(VENV), "UV_LINK_MODE": kept.get("UV_LINK_MODE", "copy")}


def say(text: str) -> None:
    """Print one line of progress."""
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
