"""Toolchain facts: the versions that a stage's result depends on, for inputs/toolchain/*.json.

Pure but for looking at what is installed; no toolchain is imported. Installing one changes the
facts of its own targets alone: a toolchain with an environment of its own stands in no other
file, so it repeats neither a search nor another target.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from types import ModuleType
from typing import TypedDict

from fettle import plugins
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import runs_beside_fettle


class ToolchainFacts(TypedDict):
    """Toolchain facts: the versions of a runtime's packages, None for one that is absent.

    `lock` is the digest of its lock file; None, and `python` this process's, where the runtime
    shares fettle's own environment.
    """

    runtime: str
    packages: dict[str, str | None]
    lock: str | None
    python: str | None


def toolchain_facts(target: str) -> ToolchainFacts:
    """Return the facts of a target's runtime: a dep of export@TARGET and evaluate@TARGET."""
    record = plugins.resolve("targets", target, where="targets").TARGET
    return _facts(record.runtime, _runtime(record.runtime))


def float_runtime_facts() -> dict[str, ToolchainFacts]:
    """Return the facts of each runtime that evaluate times the float model in.

    A dep of every evaluate@TARGET: what is compressed has to beat the best of them.
    """
    return {name: _facts(name, runtime) for name, runtime in _shared(plugins.names("runtimes"))}


def profiled_runtime_facts(targets: Iterable[str]) -> dict[str, ToolchainFacts]:
    """Return the facts of the runtimes among `targets` that latency_table can profile."""
    records = [plugins.resolve("targets", name, where="targets").TARGET for name in targets]
    names = sorted({record.runtime for record in records})
    return {
        name: _facts(name, runtime) for name, runtime in _shared(names) if _has_profiler(runtime)
    }


def _shared(names: Iterable[str]) -> list[tuple[str, ModuleType]]:
    """Pick the runtimes that share fettle's own environment."""
    runtimes = [(name, _runtime(name)) for name in names]
    return [(name, runtime) for name, runtime in runtimes if runs_beside_fettle(runtime)]


def _has_profiler(runtime: ModuleType) -> bool:
    return hasattr(runtime, "profile")


def _runtime(name: str) -> ModuleType:
    return plugins.resolve("runtimes", name, where="the target's runtime")


def _facts(name: str, runtime: ModuleType) -> ToolchainFacts:
    packages: tuple[str, ...] = runtime.PACKAGES
    if not hasattr(runtime, "TOOLCHAIN"):
        return {
            "runtime": name,
            "packages": {package: _version(package) for package in packages},
            "lock": None,
            "python": platform.python_version(),
        }
    environment = toolchain_environment.find(runtime.TOOLCHAIN)
    return {
        "runtime": name,
        "packages": {
            package: None if environment is None else environment.packages.get(package)
            for package in packages
        },
        "lock": toolchain_environment.lock_digest(runtime.TOOLCHAIN),
        "python": None if environment is None else environment.python_version,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
