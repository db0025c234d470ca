"""Host requirements of a toolchain: the machine and interpreter that its packages are made for."""

from __future__ import annotations

import platform
import sys

from fettle.errors import TargetError
from fettle.hardware.isolated import node_packages
from fettle.hardware.isolated.toolchain import Toolchain


def fits_machine(toolchain: Toolchain) -> bool:
    """Say whether its packages are made for this machine."""
    return not toolchain.platforms or (sys.platform, platform.machine()) in toolchain.platforms


def check(toolchain: Toolchain) -> None:
    """Raise TargetError where a toolchain has nothing for this Python, Node.js or machine."""
    if toolchain.interpreter == "node":
        node_packages.check_node(toolchain.title)
        return
    here, (oldest, newest) = sys.version_info[:2], toolchain.pythons
    if not oldest <= here <= newest:
        raise TargetError(
            f"{toolchain.title} has no packages for this Python",
            got=platform.python_version(),
            rule=f"its lock is for Python {'.'.join(map(str, oldest))} to "
            f"{'.'.join(map(str, newest))}",
            fix="install fettle with such a Python, or drop its targets (params.yaml: targets)",
        )

    if not fits_machine(toolchain):
        raise TargetError(
            f"{toolchain.title} has no packages for this machine",
            got=f"{sys.platform} {platform.machine()}",
            rule=f"it is made for {' and '.join(map(' '.join, toolchain.platforms))}",
            fix="drop its targets (params.yaml: targets), or run on such a machine",
        )
