"""Index of the installed code: the source files of our packages, and the versions of all others.

A file is read and parsed once; its table is cached by path, size, mtime and ctime, so that asking
again costs a stat a file. One that changed in the last seconds is not remembered: a second edit in
the same tick of the clock would leave the same stat. Nothing here is imported to be looked at.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import fettle
from fettle import manifest
from fettle.errors import ProjectError
from fettle.plugins import package_of
from fettle.staleness import source_symbols
from fettle.staleness.reachability import Sources
from fettle.staleness.source_symbols import Table, TableJson

OURS = ("fettle", "stages")
RACY_NS = 2_000_000_000  # FAT, the coarsest file system in use, ticks every 2 s
SCHEMA = 2  # of the cache: raise it when a table's form or a digest's rule changes

CachedTable = tuple[str, int, TableJson]  # stamp and size of the file it was read from


class Index:
    """The files of our packages under `roots` ({package: folder}), with a cache in `cache`."""

    def __init__(self, roots: dict[str, Path], cache: Path) -> None:
        self._cache = cache / "tables.json"
        self._stats: dict[Path, tuple[Path, str, int]] = {}
        latest = 0
        files: dict[str, Path] = {}
        data: dict[str, list[Path]] = {}
        for name, root in roots.items():
            for path, stat in _walk(root):
                place = Path(name) / path.relative_to(root)
                stamp = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
                self._stats[path] = (place, stamp, stat.st_size)
                latest = max(latest, stat.st_mtime_ns, stat.st_ctime_ns)
                if path.suffix == ".py":
                    files[_module(place)] = path
                else:
                    data.setdefault(".".join(place.parent.parts), []).append(path)
        self.is_settled = latest < time.time_ns() - RACY_NS
        self._known: dict[str, CachedTable] | None = None
        self._fresh = False
        self._tables: dict[str, Table] = {}
        self.sources = Sources(files, data, self._read)
        self.packages = Packages(cache)

    @classmethod
    def of_installed(cls, cache: Path) -> Index:
        """Index the code that runs now: `stages` lies beside `fettle`, wherever that is."""
        home = Path(fettle.__file__).parents[1]
        return cls({name: home / name for name in OURS}, cache)

    def key(self) -> str:
        """Return a digest of what every file's stat says; it changes with any edit."""
        rows = {place.as_posix(): f"{at} {size}" for place, at, size in self._stats.values()}
        return manifest.digest_of(rows)

    def plugins(self, folder: str) -> list[str]:
        """List the plug-ins of a folder, as fettle.plugins does."""
        prefix = f"{package_of(folder)}."
        names = [module.removeprefix(prefix) for module in self.sources.under(prefix)]
        return [name for name in names if not name.startswith("_") and "." not in name]

    def label(self, path: Path) -> str:
        """Return "fettle/report/page.css" of a file, wherever the package is installed."""
        return self._stats[path][0].as_posix()

    def label_of(self, module: str) -> str:
        """Return a module's file, as `label` does."""
        return self.label(self.sources.files[module])

    def imports_of(self, path: Path) -> list[str]:
        """List what a file outside our packages imports, at any place in it."""
        table = source_symbols.parse(path.read_bytes(), path.stem, package=False)
        found = []
        for symbol in table.symbols.values():
            found += symbol.executes
            found += [f"{base}.{attr}" for base, attr in symbol.imports.values() if attr]
        return found

    def _read(self, module: str) -> Table:
        if module not in self._tables:
            self._tables[module] = self._load(module)
        return self._tables[module]

    def _load(self, module: str) -> Table:
        path = self.sources.files[module]
        _, at, size = self._stats[path]
        if self._known is None:
            self._known = _read_cache(self._cache)
        row = self._known.get(str(path))
        if row is not None and (row[0], row[1]) == (at, size):
            return Table.from_json(row[2])
        try:
            package = path.name == "__init__.py"
            table = source_symbols.parse(path.read_bytes(), module, package=package)
        except (SyntaxError, ValueError) as err:
            raise ProjectError(
                f"{self.label(path)} cannot be read as Python",
                got=str(err),
                rule="what a stage runs is read before it runs, to know what is stale",
                fix="mend that file",
            ) from err
        self._known[str(path)] = (at, size, table.to_json())
        self._fresh = True
        return table

    def save(self) -> None:
        """Write the cache if there is something new; one that cannot be written costs time."""
        self.packages.save()
        if self._fresh and self._known is not None:
            before = time.time_ns() - RACY_NS
            paths = {
                str(path)
                for path, (_, stamp, _) in self._stats.items()
                if max(map(int, stamp.split())) < before
            }
            rows = {path: row for path, row in self._known.items() if path in paths}
            with suppress(OSError):
                manifest.write_text(self._cache, json.dumps({"schema": SCHEMA, "files": rows}))


class Packages:
    """The versions of the installed packages, read off the names of their *.dist-info folders."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache / "packages.json"
        self.versions: dict[str, str] = {}
        for folder in reversed([Path(entry or ".") for entry in sys.path]):
            with suppress(OSError):
                for name in os.listdir(folder):  # noqa: PTH208  # names alone: a Path each is slow
                    if name.endswith(".dist-info"):
                        package, _, version = name.removesuffix(".dist-info").rpartition("-")
                        self.versions[normal(package)] = version.partition("+")[0]

    def key(self) -> str:
        """Return a digest of all that is installed."""
        return manifest.digest_of(self.versions)

    def version(self, module: str) -> str:
        """Return the version of the package that provides a top-level module, or "absent"."""
        versions = [self.versions.get(name, "") for name in self._providers(module)]
        return " ".join(sorted(filter(None, versions))) or "absent"

    def required_by(self, modules: Iterable[str]) -> set[str]:
        """Return the packages that `modules` need, and what those require, on any machine."""
        waiting = [name for module in modules for name in self._providers(module)]
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in found and name in self.versions:
                found.add(name)
                waiting += self._requires(name)
        return found

    def _providers(self, module: str) -> list[str]:
        if normal(module) in self.versions:
            return [normal(module)]
        return self._known["modules"].get(module, [])

    def _requires(self, name: str) -> list[str]:
        known = self._known["requires"]
        if name not in known:
            lines = metadata.distribution(name).requires or []
            known[name] = sorted(
                {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}
            )
        return known[name]

    @functools.cached_property
    def _known(self) -> dict[str, dict[str, list[str]]]:
        """Which packages provide a module, and which they require; kept until one is installed."""
        try:
            doc = json.loads(self._cache.read_text())
            if doc["key"] == self.key():
                return {"modules": doc["modules"], "requires": doc["requires"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        found = metadata.packages_distributions()
        modules = {name: sorted({normal(one) for one in all_}) for name, all_ in found.items()}
        return {"modules": modules, "requires": {}}

    def save(self) -> None:
        """Write what was looked up."""
        if "_known" in vars(self):
            with suppress(OSError):
                manifest.write_text(self._cache, json.dumps({"key": self.key(), **self._known}))


def normal(name: str) -> str:
    """Normalise a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every file below a package with its stat."""
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if entry.is_dir():
                if entry.name != "__pycache__" and not entry.name.startswith("."):
                    yield from _walk(Path(entry.path))
            elif not entry.name.endswith((".pyc", ".pyo")):
                yield Path(entry.path), entry.stat()


def _module(place: Path) -> str:
    parts = place.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read_cache(path: Path) -> dict[str, CachedTable]:
    try:
        doc = json.loads(path.read_text())
        return dict(doc["files"]) if doc["schema"] == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
