"""Emulated Python: an environment whose Python is another machine's, run by qemu-user.

    PLACE/bin/python   a wrapper that runs it; it takes the words that any Python takes
    PLACE/qemu/…       the emulator, for this machine
    PLACE/sysroot/…       the other machine's Python, its C library, and the locked wheels

Answers are the other machine's own, bit for bit as far as qemu is right; times are not, so nothing
that runs here is ever timed.
"""

from __future__ import annotations

from pathlib import Path

from fettle.hardware.isolated.toolchain import EmulatedPython

SITE = "sysroot/usr/lib/python3/dist-packages"  # Debian's own Python looks there, with -I too
WRAPPER = """\
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")/..
root=$here/sysroot
exec "$here/qemu/usr/bin/qemu-{machine}-static" -L "$root" "$root/usr/bin/{python}" "$@"
"""


def site(place: Path) -> Path:
    """Return the folder of its packages."""
    return place / SITE


def write_wrapper(emulated: EmulatedPython, place: Path) -> Path:
    """Write PLACE/bin/python, and drop the emulators of all other machines (250 MB)."""
    for other in (place / "qemu" / "usr" / "bin").iterdir():
        if other.name != f"qemu-{emulated.machine}-static":
            other.unlink()
    wrapper = place / "bin" / "python"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    wrapper.write_text(WRAPPER.format(machine=emulated.machine, python=emulated.name))
    wrapper.chmod(0o755)
    return wrapper


def pip_options(emulated: EmulatedPython, place: Path) -> tuple[str, ...]:
    """Return pip's words to fetch the other machine's wheels; this machine's pip unpacks them."""
    tags = [f"--platform={tag}_{emulated.machine}" for tag in emulated.wheel_tags]
    return (
        f"--target={site(place)}",
        "--implementation=cp",
        f"--python-version={emulated.version}",
        *tags,
    )
