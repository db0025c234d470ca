"""Debian packages of a toolchain, unpacked into its environment: no root, nothing installed.

apt verifies each package against the suite's signed index, in a state folder of its own, so that
the machine's own apt knows nothing of it. A suite's point release replaces its packages and takes
the old files away: so versions are not pinned here, and what came is recorded instead (the stamp of
the environment, and through it inputs/toolchain/TARGET.json).
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from fettle.errors import TargetError
from fettle.hardware.isolated.toolchain import DebianPackages

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"  # plain: the index is signed, and a proxy may keep it
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = ("apt-get", "dpkg-deb")
HOSTS = {"x86_64": "amd64", "aarch64": "arm64"}  # what Debian calls this machine
Run = Callable[[Sequence[str], Path], None]  # a command, and the folder it runs in


def check_host(asked: Sequence[DebianPackages]) -> None:
    """Refuse a machine that cannot fetch Debian's packages; raises TargetError with what lacks."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    lacking += [] if KEYRING.is_file() else [str(KEYRING)]
    if not asked or (not lacking and platform.machine() in HOSTS):
        return
    raise TargetError(
        "this machine cannot fetch the Debian packages of the toolchain",
        got=f"no {' and no '.join(lacking)}" if lacking else f"a {platform.machine()}",
        rule="they are unpacked without root, verified by Debian's own keys, on Linux x86 or arm64",
        fix="install apt and debian-archive-keyring (any Debian or Ubuntu has both in its archive)",
    )


def unpack(asked: Sequence[DebianPackages], place: Path, run: Run) -> dict[str, str]:
    """Fetch the packages and unpack each set into its folder below `place`; return the versions."""
    if not asked:
        return {}
    state = place / "apt"
    options = _prepare(state, [one.architecture or host() for one in asked])
    run(["apt-get", *options, "-qq", "update"], state)
    versions: dict[str, str] = {}
    for number, one in enumerate(asked):
        got = state / f"debs-{number}"
        got.mkdir()
        architecture = one.architecture or host()
        names = [f"{name}:{architecture}" for name in one.packages]
        run(["apt-get", *options, "-qq", "download", *names], got)
        for deb in sorted(got.glob("*.deb")):
            name, version, _ = deb.name.split("_", 2)
            versions[name] = version.replace("%3a", ":")
            run(["dpkg-deb", "-x", str(deb), str(place / one.folder)], state)
    shutil.rmtree(state)
    return versions


def host() -> str:
    """Return Debian's name of this machine's architecture."""
    return HOSTS.get(platform.machine(), platform.machine())


def _prepare(state: Path, architectures: Sequence[str]) -> list[str]:
    """Make apt's own folders below `state`; return the options that keep it inside them."""
    every = list(dict.fromkeys(architectures))
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    source = f"deb [arch={','.join(every)} signed-by={KEYRING}] {MIRROR} {SUITE} main\n"
    (state / "sources.list").write_text(source)
    words = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state,
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": every[0],
        "APT::Sandbox::User": "root",  # no other user may read this folder
        "Acquire::Languages": "none",
    }
    options = [f"-o{key}={value}" for key, value in words.items()]
    return [*options, *(f"-oAPT::Architectures::={one}" for one in every)]
