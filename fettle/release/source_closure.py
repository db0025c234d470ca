"""Import closure of a service: the source files that a release must carry, found by reading.

Nothing is imported, so nothing runs; an import inside a function counts, one below
`if TYPE_CHECKING:` does not. What the closure reaches outside our packages is named by its
top-level module: from that the requirements are made.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fettle.errors import OurFault
from fettle.import_statements import imported


@dataclass(frozen=True, slots=True)
class SourceClosure:
    """`files`: {path in the release: file}; `foreign`: top-level modules of other packages."""

    files: Mapping[str, Path]
    foreign: frozenset[str]


def closure(entries: Mapping[str, Path], packages: Mapping[str, Path]) -> SourceClosure:
    """Follow the imports of `entries` ({path in the release: file}) through `packages`.

    `packages` maps a top-level package name to its folder. Raises OurFault when a module of such a
    package is not there.
    """
    files: dict[str, Path] = {}
    foreign: set[str] = set()
    waiting = list(entries.items())
    while waiting:
        place, path = waiting.pop()
        if place in files:
            continue
        files[place] = path
        package = ".".join(Path(place).parent.parts)
        for module in imported(ast.parse(path.read_text()), package):
            top = module.partition(".")[0]
            if top in packages:
                waiting += _module_files(module, packages).items()
            elif top not in sys.stdlib_module_names:
                foreign.add(top)
    return SourceClosure(dict(sorted(files.items())), frozenset(foreign))


def _module_files(module: str, packages: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files that importing `module` runs: its packages' `__init__.py`, then its own.

    The last part may be a name inside a module ("fettle.errors.UserError"): then it is dropped.
    """
    top, *rest = module.split(".")
    folder, found = packages[top], {}
    place = Path(top)
    for index, part in enumerate(["", *rest]):
        folder, place = folder / part, place / part
        if (folder / "__init__.py").is_file():
            found[str(place / "__init__.py")] = folder / "__init__.py"
        elif folder.with_suffix(".py").is_file():
            found[str(place.with_suffix(".py"))] = folder.with_suffix(".py")
            return found
        elif index < len(rest):
            raise OurFault(f"no module {module} in {packages[top].parent}")
    return found
