"""`fettle init DIR --data PHOTOS`: write a project of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="The new project's folder.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder of photos, one folder a class, or a manifest.")
    ] = None,
) -> None:
    """Write a new project: params.yaml, dvc.yaml and a service; `fettle ci init` adds CI.

    Example: fettle init fruit --data ~/photos/fruit
    """
    from fettle import project as projects
    from fettle.cli.project_template import make_project
    from fettle.errors import DataError, UserError

    projects.refuse_place(folder.resolve())
    if folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} is not empty",
            got=", ".join(sorted(p.name for p in folder.iterdir())[:5]),
            rule="a project is written into a new or empty folder",
            fix="name another folder",
        )
    if data is not None and not data.exists():
        raise DataError(f"there is no data at {data}", fix="give --data an existing folder")
    name = make_project(folder, data=data)
    print(f"wrote {folder}, whose releases are named {name}; now: cd {folder} && fettle run")
