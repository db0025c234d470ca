"""Resolve a plug-in by its file name: the name in params.yaml is the file in the folder.

    ingest.source: digits      →  fettle/data/sources/digits.py
    finetune.family: resnet    →  fettle/models/families/resnet.py
    compress.recipe[].use      →  fettle/compress/<use>.py
    targets[]                  →  fettle/targets/<name>.py

There is no registry: adding a file adds the plug-in, its docstring is its catalogue entry.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from pathlib import Path
from types import ModuleType

from fettle.errors import ParamsError

# See fettle/staleness/reachability.py: a call of `resolve` says which plug-ins it may give.
IMPORTS_BY_NAME: tuple[str, ...] = ()


def folder_path(folder: str) -> Path:
    """Return the folder that holds the plug-ins of one kind ("sources", "families", …)."""
    package = importlib.import_module(f"fettle.{folder}")
    return Path(next(iter(package.__path__)))


def names(folder: str) -> list[str]:
    """List the plug-ins of a folder, sorted; a file that begins with '_' is not one."""
    return sorted(p.stem for p in folder_path(folder).glob("[!_]*.py"))


def suggest(name: str, choices: list[str]) -> str:
    """Return ", did you mean 'x'?" for the closest choice, or an empty text."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def resolve(folder: str, name: str, *, where: str) -> ModuleType:
    """Import `fettle/<folder>/<name>.py`; `where` is the params.yaml path for the error text.

    Raises ParamsError, with the choices and the nearest name, when there is no such file.
    """
    choices = names(folder)
    if name not in choices:
        raise ParamsError(
            f"{where}: unknown name",
            got=f"'{name}'{suggest(name, choices)}",
            rule=f"the choices are the files of fettle/{folder}: {', '.join(choices)}",
            fix=f"set {where} to one of them, or add fettle/{folder}/{name}.py",
        )
    return importlib.import_module(f"fettle.{folder}.{name}")


def summary(folder: str, name: str) -> str:
    """Return the first line of a plug-in's docstring without importing it."""
    tree = ast.parse((folder_path(folder) / f"{name}.py").read_text())
    return (ast.get_docstring(tree) or "").split("\n", 1)[0]
