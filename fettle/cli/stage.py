"""`fettle stage NAME [TARGET]`: the command that dvc.yaml calls; people use `fettle run`.

Each stage is a process of its own, so this path imports neither typer nor the other commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fettle import import_isolation
from fettle.errors import UserError


def main(words: Sequence[str]) -> None:
    """Run one stage of the project in the current folder and end this process."""
    check(words)
    from stages import __main__ as runner

    code = runner.main(list(words))
    # All is written. Taking torch, its threads and its tensors down in order costs up to 1 s.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def check(words: Sequence[str]) -> None:
    """Refuse a stage that there is not, more or fewer words than it takes, a folder without params.

    Raises UserError.
    """
    folder = Path(next(iter(import_isolation.load("stages").__path__)))
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    if words[0] not in names:
        from fettle.plugins import suggest

        raise UserError(
            f"there is no stage '{words[0]}'{suggest(words[0], names)}",
            rule=f"the stages are {', '.join(names)}",
        )
    if not Path("params.yaml").is_file():
        from fettle import project as projects

        projects.find()
    per_target = "\nPER_TARGET = True" in (folder / f"{words[0]}.py").read_text()
    if len(words) != 1 + per_target:
        raise UserError(
            f"the stage {words[0]} runs {'for one target' if per_target else 'for all targets'}",
            got=" ".join(words[1:]) or "no target",
            fix=f"fettle stage {words[0]}{' TARGET' if per_target else ''}",
        )


def stage(name: str, target: str | None = None) -> None:
    """Run one stage of dvc.yaml, as DVC does; `fettle run` is the command for people.

    Example: fettle stage export x86_ort_int8
    """
    main([name, target] if target else [name])
