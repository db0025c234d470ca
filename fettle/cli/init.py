"""`fettle init DIR --data PHOTOS`: write a project of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
# dvc.lock is the user's to commit: with a DVC remote, a clone then restores the model
IGNORED = ".fettle/\nartifacts/\ninputs/\nrecords/\nreleases/\nreport/\n__pycache__/\n"


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
    from fettle.cli.project_template import name_release, write_project
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
    created = not folder.exists()
    try:
        write_project(folder, photos=data is not None)
        name = name_release(folder)
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text(DVC_CONFIG)
        (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        (folder / ".dvcignore").write_text("__pycache__\n.fettle\n.venv\nreleases\n")
        (folder / ".gitignore").write_text(IGNORED)
        projects.tell_dvc_of_git(folder)
        if data is not None:
            projects.set_local(folder, "data", data)
    except BaseException:
        if created:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    print(f"wrote {folder}, whose releases are named {name}; now: cd {folder} && fettle run")
