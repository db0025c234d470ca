"""Import of our own top-level packages, stages and flows, whatever else bears these names.

A user's project may have folders `stages` and `flows` of its own. Ours are loaded from beside
fettle, under their names; while the user's modules are imported, theirs stand under these names
(docs/decisions/0040).
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import fettle
from fettle.errors import OurFault

OURS = ("stages", "flows")


def load(name: str) -> ModuleType:
    """Import our package `name` from beside fettle, not from the current folder or sys.path."""
    folder = Path(fettle.__file__).resolve().parents[1] / name
    known = sys.modules.get(name)
    if known is not None and _lies_in(known, folder):
        return known
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise OurFault(
            f"the package {name} does not lie beside fettle",
            got=f"nothing at {folder}",
            fix="install fettle-mlops again",
        )
    _take_out(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def of_the_user(roots: list[Path]) -> Iterator[None]:
    """Let the user's own `stages` and `flows` stand under these names; ours come back at the end.

    `roots` go first on sys.path, and stay there. What the user's modules have imported they keep.
    """
    for root in reversed(roots):
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
    theirs = [name for name in OURS if any(_holds(root, name) for root in roots)]
    ours = {module: sys.modules.pop(module) for name in theirs for module in _loaded(name)}
    try:
        yield
    finally:
        if ours:
            for name in theirs:
                _take_out(name)
            sys.modules.update(ours)


def _holds(root: Path, name: str) -> bool:
    """Tell whether a folder has a package or module of this name that is not ours."""
    ours = Path(fettle.__file__).resolve().parents[1]
    return root.resolve() != ours and ((root / name).is_dir() or (root / f"{name}.py").is_file())


def _loaded(name: str) -> list[str]:
    return [module for module in sys.modules if module == name or module.startswith(f"{name}.")]


def _take_out(name: str) -> None:
    for module in _loaded(name):
        del sys.modules[module]


def _lies_in(module: ModuleType, folder: Path) -> bool:
    return bool(module.__file__) and Path(str(module.__file__)).resolve().parent == folder


def command(module: str, *words: str) -> list[str]:
    """Return the command that runs a module of stages or flows in a process of its own.

    `-P` keeps the current folder off sys.path, where `-m` would put it first.
    """
    return [sys.executable, "-P", "-m", "fettle.import_isolation", module, *words]


if __name__ == "__main__":
    del sys.argv[0]
    load(sys.argv[0].partition(".")[0])
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
