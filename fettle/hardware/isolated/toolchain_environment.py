"""Toolchain environment: a virtual one, made from its lock in a cache folder of this user.

    $FETTLE_TOOLCHAINS, else $XDG_CACHE_HOME/fettle/toolchains, else ~/.cache/fettle/toolchains
        NAME-DIGEST/                 the environment; DIGEST is of lock, Python and platform
        NAME-DIGEST/complete.json    its stamp, written last: without it the folder is made anew
        NAME-DIGEST.busy             held with flock while it is made, by pip too

Another lock is another folder, so an older fettle on this machine keeps the one it knows.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fettle.errors import TargetError
from fettle.hardware.isolated import (
    debian_packages,
    emulated_python,
    host_requirements,
    node_packages,
)
from fettle.hardware.isolated.toolchain import PLAIN_PATH, Toolchain
from fettle.hardware.runtimes import Availability

STAMP = "complete.json"
VARIABLE = "FETTLE_TOOLCHAINS"
LAST_LINES = 4  # of pip's words; the reason stands in the last ones
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """A whole environment: its Python, that one's version, and {package: version} in it."""

    python: Path
    python_version: str
    packages: dict[str, str]


def root() -> Path:
    """Return the folder of all toolchains of this user; it is not made.

    Raises TargetError where this user has no home folder and no variable names another, or its
    path would break what toolchains do with it.
    """
    cache = _root()
    if not PLAIN_PATH.fullmatch(str(cache)):
        raise TargetError(
            "the folder of toolchains has a path that toolchains cannot take",
            got=f"'{cache}'",
            rule="they hand it to a shell unquoted: letters, digits and / . _ , + @ : = ~ - only",
            fix=f"set {VARIABLE} to another folder",
        )
    return cache


def _root() -> Path:
    given, base = os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME")
    try:
        if given:
            return Path(given).expanduser().resolve()
        if base and Path(base).is_absolute():  # the XDG rule: a relative one is ignored
            return Path(base) / "fettle" / "toolchains"
        return Path.home() / ".cache" / "fettle" / "toolchains"
    except RuntimeError as err:
        raise TargetError(
            "there is no folder for toolchains",
            got=str(err),
            fix=f"set {VARIABLE} to a folder that you may write to",
        ) from err


def lock_digest(toolchain: Toolchain) -> str:
    """Return the sha256 of the lock file."""
    return hashlib.sha256(toolchain.lock.read_bytes()).hexdigest()


def folder(toolchain: Toolchain) -> Path:
    """Return where the environment for this lock, Python and platform lies, made or not."""
    parts = [lock_digest(toolchain), platform.python_version(), sys.platform, platform.machine()]
    if toolchain.debian:
        parts.append(repr((toolchain.debian, toolchain.emulated)))
    if toolchain.foreign:
        parts += [*toolchain.foreign.packages, *toolchain.foreign.platforms]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return root() / f"{toolchain.name}-{digest[:12]}"


def find(toolchain: Toolchain) -> Environment | None:
    """Return the environment when it is whole, else None: not made, half made, or its Python gone.

    Raises TargetError as `root` does.
    """
    place = folder(toolchain)
    python = _interpreter(toolchain, place)
    try:
        stamp = json.loads((place / STAMP).read_text())
        environment = Environment(python, str(stamp["python"]), dict(stamp["packages"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (
        environment if python.exists() else None
    )  # a link: false once the Python it was made of went


def availability(toolchain: Toolchain) -> Availability:
    """Tell whether the toolchain is installed; its version is that of its first requirement."""
    try:
        environment, reason = find(toolchain), f"the toolchain {toolchain.name} is not installed"
    except TargetError as err:
        environment, reason = None, f"{err.what}: {err.got}"
    if environment is None and not host_requirements.fits_machine(toolchain):
        system = f"{sys.platform} {platform.machine()}"
        return Availability(False, None, f"{toolchain.title} has no packages for {system}", None)
    if environment is None:
        return Availability(False, None, reason, f"fettle targets install {toolchain.name}")
    return Availability(True, environment.packages.get(named(toolchain)[0], "unknown"), None, None)


def named(toolchain: Toolchain) -> tuple[str, ...]:
    """Return the names of the required packages, without extras and bounds."""
    return tuple(
        requirement.partition("[")[0]
        .partition("@")[0]
        .partition("=")[0]
        .partition(">")[0]
        .partition("<")[0]
        .strip()
        for requirement in toolchain.requirements
    )


def python(toolchain: Toolchain) -> Path:
    """Return the environment's Python; raises TargetError when it is not installed."""
    environment = find(toolchain)
    if environment is None:
        raise TargetError(
            f"the toolchain {toolchain.name} is not installed",
            got=f"no whole environment at {folder(toolchain)}",
            rule="a run installs nothing by itself",
            fix=f"run `fettle targets install {toolchain.name}`, or drop its targets "
            "(params.yaml: targets)",
        )
    return environment.python


def cost(toolchain: Toolchain) -> str:
    """Cost of installing, in one line."""
    return (
        f"{toolchain.title}: about {toolchain.download_mb} MB to download, {toolchain.disk_mb} MB "
        f"on disk at {folder(toolchain)}, {toolchain.minutes} min"
    )


def install(toolchain: Toolchain, *, say: Say) -> Environment:
    """Make the environment unless it is whole; `say` gets what it costs before it begins.

    Safe to run twice at once: the second waits. Raises TargetError when this Python is not one
    of the toolchain's, the folder cannot be written, the disk is too full, or pip fails; then
    nothing half-made is left.
    """
    host_requirements.check(toolchain)
    debian_packages.check_host(toolchain.debian)
    place = folder(toolchain)
    environment = find(toolchain)
    if environment is None:
        with _install_lock(place, say) as handle:
            environment = find(toolchain)  # the one that was waited for has made it
            if environment is None:
                return _remake(toolchain, place, handle, say)
    say(f"{toolchain.title} is installed already, at {place}")
    return environment


def _remake(toolchain: Toolchain, place: Path, handle: int, say: Say) -> Environment:
    """Make it in place of what an install that was killed left; leave nothing half-made."""
    shutil.rmtree(place, ignore_errors=True)
    _check_space(toolchain, place)
    say(cost(toolchain))
    try:
        _make(toolchain, place, handle)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    environment = find(toolchain)
    assert environment is not None
    return environment


def _interpreter(toolchain: Toolchain, place: Path) -> Path:
    return place / "bin" / toolchain.interpreter


def _make(toolchain: Toolchain, place: Path, handle: int) -> None:
    """Unpack Debian's packages, run venv and pip, or npm, then write the stamp."""

    def run(command: Sequence[str], cwd: Path) -> None:
        _run(toolchain, command, handle, cwd=cwd)

    place.mkdir(parents=True)
    if toolchain.interpreter == "node":
        packages = node_packages.install(toolchain.lock, place, run)
        _stamp(place, node_packages.node_version(), packages)
        return
    debs = debian_packages.unpack(toolchain.debian, place, run)
    site, pip = _site(place), sys.executable
    words: tuple[str, ...] = ()
    if toolchain.emulated is None:
        run([sys.executable, "-I", "-m", "venv", str(place)], place)
        pip = str(place / "bin" / "python")
    else:
        emulated_python.write_wrapper(toolchain.emulated, place)
        site = emulated_python.site(place)
        words = emulated_python.pip_options(toolchain.emulated, place)
    locked = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(toolchain.lock)]
    quiet = ["--no-input", "install", "--quiet"]
    run([pip, "-I", "-m", "pip", *quiet, *words, *locked], place)
    if toolchain.foreign:
        subset = place / "foreign.txt"
        subset.write_text(_lock_lines(toolchain.lock.read_text(), toolchain.foreign.packages))
        machine = [word for tag in toolchain.foreign.platforms for word in ("--platform", tag)]
        into = ["--target", str(place / "foreign")]
        chosen = [*locked[:-1], str(subset), *machine, *into]
        run([pip, "-I", "-m", "pip", *quiet, *chosen], place)
    other = toolchain.emulated
    python = f"{other.version} ({other.machine})" if other else platform.python_version()
    _stamp(place, python, debs | _packages(site))


def _stamp(place: Path, version: str, packages: dict[str, str]) -> None:
    """Say that the environment is whole, and what is in it."""
    stamp = {"python": version, "packages": packages}
    half = place / f"{STAMP}.half"
    half.write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n")
    half.replace(place / STAMP)


def _lock_lines(lock: str, packages: tuple[str, ...]) -> str:
    """Pick the lines of some packages from a lock's text."""
    blocks = re.split(r"\n(?=[a-z])", lock)
    return "\n".join(b for b in blocks if b.partition("==")[0] in packages) + "\n"


def _site(place: Path) -> Path:
    """Return the folder of a virtual environment's packages."""
    return place / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _packages(site: Path) -> dict[str, str]:
    """Read {package: version} of a folder of packages; nothing is imported."""
    distributions = metadata.distributions(path=[str(site)])
    return {
        distribution.name.lower().replace("_", "-"): distribution.version
        for distribution in distributions
    }


def _run(toolchain: Toolchain, command: Sequence[str], handle: int, *, cwd: Path) -> None:
    """Run a step; it inherits the lock's `handle`, so that an orphan of it keeps the lock."""
    drop = ("PYTHON", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**kept, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        pass_fds=[handle],
        cwd=cwd,
    )
    if done.returncode == 0:
        return
    noise = ("[notice]", "WARNING: Location")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    last = [line[:300] for line in lines if not line.startswith(noise)][-LAST_LINES:]
    full = "No space left on device" in done.stdout
    raise TargetError(
        f"the toolchain {toolchain.name} could not be installed",
        got=" / ".join(last) or f"exit code {done.returncode} of {Path(command[0]).name}",
        rule=f"its environment is made of {toolchain.lock.name}, with hashes checked",
        fix=_space_fix(toolchain)
        if full
        else f"see to what {_installer(command)} says (HTTPS_PROXY names a proxy, PIP_INDEX_URL a "
        "mirror), and run it again: nothing half-made was left",
    )


def _installer(command: Sequence[str]) -> str:
    """Name what a step was run with."""
    name = Path(command[0]).name
    return name if name in ("npm", "apt-get") else "pip"


def _space_fix(toolchain: Toolchain) -> str:
    return f"free {toolchain.disk_mb} MB there, or set {VARIABLE} to a folder on a larger disk"


def _check_space(toolchain: Toolchain, place: Path) -> None:
    free_mb = shutil.disk_usage(place.parent).free // 1_000_000
    if free_mb < toolchain.disk_mb:
        raise TargetError(
            f"there is no room for the toolchain {toolchain.name}",
            got=f"{free_mb} MB free at {place.parent}",
            rule=f"it takes {toolchain.disk_mb} MB",
            fix=_space_fix(toolchain),
        )


@contextmanager
def _install_lock(place: Path, say: Say) -> Iterator[int]:
    """Hold the lock of one environment; the kernel frees it on any death. Yields its handle."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        busy = place.with_name(f"{place.name}.busy").open("a")
    except OSError as err:
        raise TargetError(
            "the folder of toolchains cannot be written",
            got=f"{place.parent}: {err.strerror}",
            fix=f"set {VARIABLE} to a folder that you may write to",
        ) from err
    with busy:
        try:
            fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is installing it: waiting for that one")
            fcntl.flock(busy, fcntl.LOCK_EX)
        yield busy.fileno()
