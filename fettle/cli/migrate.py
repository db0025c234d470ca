"""`fettle migrate`: bring params files, and dvc.yaml with them, up to this version's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def migrate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Params files; params.yaml and dvc.yaml of this folder if left out."),
    ] = None,
) -> None:
    """Rewrite params files of an earlier schema in place: keys are renamed, comments stay.

    Example: fettle migrate examples/photos.yaml
    """
    from fettle import params_migration
    from fettle.errors import ProjectError

    own = [path for path in (Path("params.yaml"), Path("dvc.yaml")) if path.is_file()]
    if not files and Path("params.yaml") not in own:
        raise ProjectError(
            f"there is no params.yaml in {Path.cwd()}",
            fix="cd into the project, or name the files: fettle migrate FILE",
        )
    migrations = [params_migration.plan(path) for path in files or own]  # all, before any write
    for migration in migrations:
        if migration.changes:
            params_migration.write(migration)
        for change in migration.changes or ("nothing to change",):
            print(f"{migration.path}: {change}")
