"""Resolve a plug-in by its file name: the name in params.yaml is the file in the folder.

    ingest.source: digits      →  fettle/data/sources/digits.py
    finetune.family: resnet    →  fettle/models/families/resnet.py
    compress.recipe[].use      →  fettle/compress/techniques/<use>.py
    targets[]                  →  fettle/hardware/targets/<name>.py

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

# The kinds of plug-in, and the folder of fettle/ whose files are the plug-ins of each. No module
# names: those would count as reached by all that asks for a plug-in (fettle/staleness).
FOLDERS = {
    "sources": "data/sources",
    "checks": "data/checks",
    "families": "models/families",
    "techniques": "compress/techniques",
    "quantizers": "quantize/quantizers",
    "targets": "hardware/targets",
    "runtimes": "hardware/runtimes",
}


def folder_of(kind: str) -> str:
    """Return the folder of a kind of plug-in, from the root of the sources, for error texts."""
    return f"fettle/{FOLDERS[kind]}"


def package_of(kind: str) -> str:
    """Return the package whose modules are the plug-ins of a kind."""
    return folder_of(kind).replace("/", ".")


def folder_path(kind: str) -> Path:
    """Return the folder that holds the plug-ins of one kind ("sources", "families", …)."""
    package = importlib.import_module(package_of(kind))
    return Path(next(iter(package.__path__)))


def names(kind: str) -> list[str]:
    """List the plug-ins of a kind, sorted; a file that begins with '_' is not one."""
    return sorted(p.stem for p in folder_path(kind).glob("[!_]*.py"))


def suggest(name: str, choices: list[str]) -> str:
    """Return ", did you mean 'x'?" for the closest choice, or an empty text."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def resolve(kind: str, name: str, *, where: str) -> ModuleType:
    """Import the plug-in `name` of a kind ("sources", …); `where` is its key in params.yaml.

    Raises ParamsError, with the choices and the nearest name, when there is no such file.
    """
    choices = names(kind)
    if name not in choices:
        raise ParamsError(
            f"{where}: unknown name",
            got=f"'{name}'{suggest(name, choices)}",
            rule=f"the choices are the files of {folder_of(kind)}: {', '.join(choices)}",
            fix=f"set {where} to one of them, or add {folder_of(kind)}/{name}.py",
        )
    return importlib.import_module(f"{package_of(kind)}.{name}")


def summary(kind: str, name: str) -> str:
    """Return the first line of a plug-in's docstring without importing it."""
    tree = ast.parse((folder_path(kind) / f"{name}.py").read_text())
    return (ast.get_docstring(tree) or "").split("\n", 1)[0]
