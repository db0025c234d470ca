"""Requirements of a release: the packages that its modules need, with the lock's versions.

A release states what it was measured with: versions come from what is installed, and where the
project has a lock, both must agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fettle import licences
from fettle.errors import ProjectError

LOCK = "requirements.lock"


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package; `requires` names others of the same list (all names normalised)."""

    name: str
    version: str
    licence: str | None
    requires: tuple[str, ...]


def of_modules(modules: Iterable[str]) -> list[str]:
    """Return the packages that provide top-level `modules`, sorted.

    Raises ProjectError when one is not installed.
    """
    providers = metadata.packages_distributions()
    found = set()
    for module in modules:
        if module not in providers:
            raise ProjectError(
                f"no installed package provides the module {module}",
                rule="a release names every package that its sources import",
                fix="install it (`make setup`), or take the import out of the service",
            )
        found.add(_normal(providers[module][0]))
    return sorted(found)


def closure(names: Iterable[str], lock: Path | None) -> list[Package]:
    """Return `names` and all they require on this machine, sorted by name.

    Raises ProjectError when one is missing, or its version is not the lock's.
    """
    locked = read_lock(lock) if lock and lock.is_file() else {}
    found: dict[str, set[str]] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(_normal(n), frozenset()) for n in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        wanted = _requires(name, extras)
        found.setdefault(name, set()).update(wanted)
        waiting += wanted.items()
    return [_package(name, sorted(found[name]), locked) for name in sorted(found)]


def read_lock(path: Path) -> dict[str, str]:
    """Return {package: version} of a pip lock file for this machine (hashes are skipped)."""
    from packaging.requirements import InvalidRequirement, Requirement

    versions = {}
    for line in path.read_text().splitlines():
        text = line.split("#", 1)[0].strip().removesuffix("\\").strip()
        if not text or text.startswith("-"):
            continue
        try:
            wanted = Requirement(text)
        except InvalidRequirement as err:
            raise ProjectError(f"{path.name} has a line that is no requirement", got=text) from err
        if wanted.marker is None or wanted.marker.evaluate():
            version = str(wanted.specifier).removeprefix("==")
            versions[_normal(wanted.name)] = version.partition("+")[0]  # a build's own: 2.13.0+cpu
    return versions


def text(packages: Iterable[Package]) -> str:
    """Write requirements.txt."""
    return "".join(f"{package.name}=={package.version}\n" for package in packages)


def _package(name: str, requires: list[str], locked: Mapping[str, str]) -> Package:
    found = _distribution(name)
    version = found.version.partition("+")[0]
    if locked.get(name, version) != version:
        raise ProjectError(
            f"the installed {name} is not the locked one",
            got=version,
            rule=f"{LOCK} says {locked[name]}, and a release states what it was measured with",
            fix="run `make setup`",
        )
    return Package(name, version, licences.of_metadata(found.metadata), tuple(requires))


def _requires(name: str, extras: frozenset[str]) -> dict[str, frozenset[str]]:
    """Return {package: extras} that `name` with `extras` requires on this machine."""
    from packaging.requirements import Requirement

    wanted: dict[str, frozenset[str]] = {}
    for line in _distribution(name).requires or []:
        one = Requirement(line)
        contexts = [{"extra": extra} for extra in ("", *sorted(extras))]
        if one.marker is None or any(one.marker.evaluate(context) for context in contexts):
            key = _normal(one.name)
            wanted[key] = wanted.get(key, frozenset()) | frozenset(one.extras)
    return wanted


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as err:
        raise ProjectError(
            f"the package {name} is required by a release's service but not installed",
            fix="run `make setup`",
        ) from err


def _normal(name: str) -> str:
    """Normalise a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
