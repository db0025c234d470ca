"""Reachability over the source: what an entry can reach, found by reading and not by running.

That is functions, classes, constants, packaged data files and other packages.

Sound rather than clever: what cannot be read off (a bare module handed on, a name made at run time)
takes the whole module, or all there is. A module that imports by a computed name states in
IMPORTS_BY_NAME which top-level packages those names may be, empty where they are not ours to count.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fettle import plugins
from fettle.staleness.source_symbols import TOP, Symbol, Table

BY_NAME = "IMPORTS_BY_NAME"
KINDS = {plugins.package_of(kind): kind for kind in plugins.FOLDERS}


@dataclass(slots=True)
class Reached:
    """`symbols` {module: names}; `packages` top-level modules of others; `data` packaged files;
    `unknown` the modules that import by a name nobody stated.
    """

    symbols: dict[str, set[str]] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    data: set[Path] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of our packages: {module: file}, {module: its packaged data files}, and `read`,
    which gives a module's table.
    """

    files: Mapping[str, Path]
    data: Mapping[str, list[Path]]
    read: Callable[[str], Table]

    def is_ours(self, module: str) -> bool:
        """Tell whether a dotted name begins with one of our packages."""
        return module.partition(".")[0] in self.files

    def under(self, prefix: str) -> list[str]:
        """List the modules whose name begins with `prefix`."""
        return sorted(module for module in self.files if module.startswith(prefix))


# What a call of fettle.plugins may mean here: (verb, folder, name, module of the call) → modules.
Picked = dict[str, str]  # plug-in's module → "whole", or "claims" where it is only looked at
Choose = Callable[[str, str, str, str, set[str]], Picked]


class Walk:
    """One walk from its entries; `choose` says which plug-ins a call of fettle.plugins may give."""

    def __init__(self, sources: Sources, choose: Choose) -> None:
        self.sources, self.choose, self.found = sources, choose, Reached()
        self._waiting: list[tuple[str, str]] = []
        self._strings: dict[str, set[str]] = {}
        self._calls: dict[tuple[str, str, str, str], None] = {}

    def run(self) -> Reached:
        """Follow all that waits; then the plug-ins, which may name more, until nothing is new."""
        while True:
            while self._waiting:
                self._visit(*self._waiting.pop())
            for verb, folder, name, module in tuple(self._calls):
                seen = self._strings.get(module, set())
                for plugin, how in self.choose(verb, folder, name, module, seen).items():
                    if how == "whole":
                        self.whole(plugin)
                    else:
                        self.symbol(plugin, TOP)
                        self.symbol(plugin, "CLAIMS")
                        self.symbol(plugin, "Params")
            if not self._waiting:
                return self.found

    def symbol(self, module: str, name: str) -> None:
        """Reach one symbol of a module, which runs the module's import."""
        if module in self.sources.files and name not in self.found.symbols.get(module, ()):
            self._waiting.append((module, name))

    def whole(self, module: str) -> None:
        """Reach every symbol of a module."""
        if module in self.sources.files:
            for name in self.sources.read(module).symbols:
                self.symbol(module, name)

    def _visit(self, module: str, name: str) -> None:
        names = self.found.symbols.setdefault(module, set())
        if name in names:
            return
        table = self.sources.read(module)
        if TOP not in names and name != TOP:
            self._visit(module, TOP)
        if name not in table.symbols:
            self._missing(module, name, table)
            return
        names.add(name)
        found = table.symbols[name]
        self._strings.setdefault(module, set()).update(found.strings)
        if name == TOP:
            self._import(module.rpartition(".")[0])
            for other in table.always:
                self.symbol(module, other)
        if found.dynamic:
            self.whole(module)
        for other in found.executes:
            self._import(other)
        for bound, (base, attr) in found.imports.items():
            if bound == "*":
                self.whole(base)
            else:
                self._submodule(base, attr)
        local = {**table.symbols[TOP].imports, **found.imports}
        for ref in found.refs:
            self._refer(module, table, local, ref)
        for text in found.strings:
            self._text(text)
        if "__file__" in found.refs or any(ref.endswith(".files") for ref in found.refs):
            self._packaged(module, found)
        self._by_name(module, table, found)
        for verb, folder, plugin in found.plugins:
            self._calls[verb, folder, plugin, module] = None

    def _missing(self, module: str, name: str, table: Table) -> None:
        """Follow a name that is no symbol of its module: re-exported, bound by TOP, or unknown."""
        imports = table.symbols[TOP].imports
        if name in imports:
            self._refer(module, table, imports, name)
        elif f"{module}.{name}" in self.sources.files:
            self.symbol(f"{module}.{name}", TOP)
        elif name not in table.bound and not name.startswith("__"):
            self.whole(module)

    def _import(self, module: str) -> None:
        """Run a module's import: its parents' too."""
        if not module:
            return
        if not self.sources.is_ours(module):
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names:
                self.found.packages.add(top)
            return
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            self.symbol(".".join(parts[:end]), TOP)

    def _submodule(self, base: str, attr: str) -> None:
        if attr and f"{base}.{attr}" in self.sources.files:
            self._import(f"{base}.{attr}")

    def _refer(self, module: str, table: Table, imports: Mapping[str, list[str]], ref: str) -> None:
        """Follow a dotted name as far as it leads through our modules."""
        root, *rest = ref.split(".")
        if root not in imports:
            if root in table.symbols:
                self.symbol(module, root)
            return
        base, attr = imports[root]
        parts = [attr, *rest] if attr else rest
        while self.sources.is_ours(base):
            if parts and f"{base}.{parts[0]}" in self.sources.files:
                base = f"{base}.{parts.pop(0)}"
                self._import(base)
            elif parts:
                self.symbol(base, parts[0])
                return
            else:  # a module handed on as it is: anything may be asked of it
                self.whole(base)
                return

    def _text(self, text: str) -> None:
        """Follow a text that names a module of ours: `python -m …` runs it."""
        if "." in text and text in self.sources.files:
            self.whole(text)

    def _packaged(self, module: str, found: Symbol) -> None:
        """Reach the data files that a symbol names; all that lie beside it where it names none."""
        named = [text for text in found.strings if self.sources.is_ours(text)]
        package = module if self.sources.files[module].stem == "__init__" else ""
        near = [*named, package or module.rpartition(".")[0]]
        files = [path for folder in near for path in self.sources.data.get(folder, [])]
        chosen = [path for path in files if path.name in found.strings]
        self.found.data.update(chosen or files)

    def _by_name(self, module: str, table: Table, found: Symbol) -> None:
        for start in found.by_name:
            if self.sources.is_ours(start.rstrip("*")) and not start.endswith("*"):
                self.whole(start)
            elif BY_NAME in table.symbols:
                self.found.packages.update(table.symbols[BY_NAME].strings)
            elif (folder := KINDS.get(start.removesuffix(".*"))) and start.endswith(".*"):
                # a plug-in, by its path
                self._calls["resolve", folder, "", module] = None
            else:
                self.found.unknown.add(module)


def files_of(sources: Sources, entries: Iterator[str] | list[str]) -> set[str]:
    """Return the modules that `entries` import, at any place in them and however deep: what must be
    carried for them to run elsewhere.
    """
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in found or not sources.is_ours(module):
            continue
        parent = module.rpartition(".")[0]
        if module not in sources.files:
            waiting.append(parent)
            continue
        found.add(module)
        waiting += [parent] if parent else []
        for symbol in sources.read(module).symbols.values():
            waiting += symbol.executes
            waiting += [f"{base}.{attr}" for base, attr in symbol.imports.values() if attr]
    return found
