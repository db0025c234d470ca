"""Resolve a plug-in by its file name: the name in params.yaml is the file in the folder.

    ingest.source: digits      →  fettle/data/sources/digits.py
    finetune.family: resnet    →  fettle/models/families/resnet.py
    compress.recipe[].use      →  fettle/compress/techniques/<use>.py
    targets[]                  →  fettle/hardware/targets/<name>.py

There is no registry: adding a file adds the plug-in, its docstring is its catalogue entry. A
project may have targets of its own beside them, in its folder targets/: the project is the current
folder, as everywhere.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
from pathlib import Path
from types import ModuleType

from fettle.errors import FettleError, ParamsError

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


PROJECT_KINDS = {"targets": "targets"}  # kind: the folder of a user's project that adds to it


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


def project_files(kind: str) -> dict[str, Path]:
    """Return {name: file} of the plug-ins that the project in the current folder adds.

    A run in a workspace has a copy of the tracked files only: the others are below FETTLE_ROOT.
    """
    found: dict[str, Path] = {}
    here = Path.cwd()
    for project in (Path(os.environ.get("FETTLE_ROOT", here)), here):
        if kind in PROJECT_KINDS and (project / "params.yaml").is_file():
            files = (project / PROJECT_KINDS[kind]).glob("[!_]*.py")
            found |= {path.stem: path for path in files}
    return dict(sorted(found.items()))


def names(kind: str) -> list[str]:
    """List the plug-ins of a kind, sorted; a file that begins with '_' is not one."""
    ours = {p.stem for p in folder_path(kind).glob("[!_]*.py")}
    return sorted(ours | project_files(kind).keys())


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
    own = project_files(kind).get(name)
    if own is not None:
        return _load_own(kind, name, own)
    return importlib.import_module(f"{package_of(kind)}.{name}")


def _load_own(kind: str, name: str, path: Path) -> ModuleType:
    """Load the project's own plug-in; raises ParamsError, naming the file, when it is none."""
    like = folder_of(kind)
    if (folder_path(kind) / path.name).is_file():
        raise ParamsError(
            f"the project's own {path.parent.name}/{path.name} has the name of one of fettle's",
            got=str(path),
            rule=f"a name stands for one file, and {like}/{path.name} has this one",
            fix="give the file another name, in params.yaml too",
        )
    module = ModuleType(f"{package_of(kind)}.{name}")
    module.__file__ = str(path)
    try:
        # no bytecode: a file that was edited twice in a second would be read from the first one's
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
        if not hasattr(module.TARGET, "next_command"):
            raise TypeError(f"TARGET is no Target but {module.TARGET!r}")
    except FettleError:
        raise  # the record says itself what is wrong with it
    except Exception as err:
        raise ParamsError(
            f"the project's own {path.parent.name}/{path.name} is no record of a target",
            got=f"{type(err).__name__}: {err}",
            rule=f"it has a docstring and TARGET = Target(…), as the files of {like} have",
            fix=f"copy one of them to {path} and change its values",
        ) from err
    return module


def file_of(kind: str, name: str) -> Path:
    """Return the file of a plug-in."""
    return project_files(kind).get(name) or folder_path(kind) / f"{name}.py"


def summary(kind: str, name: str) -> str:
    """Return the first line of a plug-in's docstring without importing it."""
    tree = ast.parse(file_of(kind, name).read_text())
    return (ast.get_docstring(tree) or "").split("\n", 1)[0]
