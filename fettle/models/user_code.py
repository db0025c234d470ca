"""User code: the files of the user's own model, and the modules its code imports."""

from __future__ import annotations

import ast
import os
from pathlib import Path

from fettle.import_statements import imported
from fettle.local_settings import expand


def resolve(project: Path, given: str) -> Path:
    """Return where `given` lies: absolute, else below the project, else below FETTLE_ROOT.

    A run in a workspace has a copy of the tracked files only; weights are seldom tracked.
    """
    path = expand(given, "model")
    if path.is_absolute() or (project / path).exists():
        return project / path
    return Path(os.environ.get("FETTLE_ROOT", project)) / path


def roots(project: Path) -> list[Path]:
    """List the folders that the user's modules are imported from, first match first."""
    folders = [project.resolve(), Path(os.environ.get("FETTLE_ROOT", project)).resolve()]
    return list(dict.fromkeys(folders))


def source_closure(project: Path, module: str) -> list[Path]:
    """List the files below the project that importing `module` runs, sorted; none is imported.

    Follows `import` and `from … import`, relative ones too; what does not lie below the project is
    a library, and its version is in the lock.
    """
    files: set[Path] = set()
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        parent, _, _ = name.rpartition(".")
        if parent:
            waiting.append(parent)
        path = file_of(project, name)
        if path is not None:
            files.add(path)
            waiting += _imports(path, name)
    return sorted(files)


def file_of(project: Path, module: str) -> Path | None:
    """Return the file that importing `module` runs, if it lies below the project."""
    for root in roots(project):
        base = root.joinpath(*module.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _imports(path: Path, module: str) -> list[str]:
    """Name the modules a file imports; a name after `from` may be a module too."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []  # importing it gives the clear error
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return list(imported(tree, package))
