"""`fettle gc`: show what of a project's files may go, and with --yes remove it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.run import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fettle.cli.garbage_collection import GarbageKind

KEEP, DAYS = 5, 14.0


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else it is only shown.")] = False,
    keep: Annotated[
        int, typer.Option(min=1, help="Releases, rollouts and workspaces to keep, the newest.")
    ] = KEEP,
    days: Annotated[
        float, typer.Option(min=0.0, help="Keep workspaces, runs and checkpoints of so many days.")
    ] = DAYS,
    json_: JsonOption = False,
) -> None:
    """Show what may go of releases, rollouts, logs, workspaces and caches, and why; nothing more.

    Example: fettle gc --keep 3 --yes
    """
    import os

    from fettle import project as projects
    from fettle.cli import garbage_collection
    from fettle.cli.garbage_collection import GarbageRules

    home = projects.find()
    os.environ.update(projects.environment(home))
    rules = GarbageRules(keep=keep, days=days, now_s=time.time())
    with projects.hold(home, "fettle gc"):  # a run would write what no lock names yet
        kinds = garbage_collection.find(home, rules)
        left = [path for kind in kinds for path in _remove(kind.paths)] if yes else []
    if json_:
        print(json.dumps([document(kind) for kind in kinds]))
    else:
        show(kinds, removed=yes)
    if left:
        raise unremoved(left)


def _remove(paths: Sequence[Path]) -> list[str]:
    """Remove files and folders; return what is wrong with those that stay."""
    left = []
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as err:
            left.append(f"{path} ({err.strerror or err})")
    return left


def unremoved(left: Sequence[str]) -> Exception:
    """Return the error for what could not be removed."""
    from fettle.errors import UserError

    return UserError(
        f"{len(left)} files or folders could not be removed",
        got="; ".join(left[:3]),
        fix="remove them as the user who owns them; all others are gone",
    )


def document(kind: GarbageKind) -> dict[str, object]:
    """Return the JSON form of a kind."""
    return {
        "kind": kind.name,
        "count": len(kind.paths),
        "bytes": kind.size_bytes,
        "why": kind.why,
        "kept": kind.kept,
        "paths": [str(path) for path in kind.paths],
    }


def show(kinds: Sequence[GarbageKind], *, removed: bool) -> None:
    """Print the table, and what to do next."""
    from fettle.cli.canary_view import columns

    titles = ("what", "how many", "bytes", "why it may go", "what keeps the rest")
    rows = [
        (kind.name, str(len(kind.paths)), f"{kind.size_bytes:,}", kind.why, kind.kept)
        for kind in kinds
    ]
    print("\n".join(columns([titles, *rows])))
    count, total = sum(len(kind.paths) for kind in kinds), sum(kind.size_bytes for kind in kinds)
    if removed:
        print(f"removed {count}, {total:,} bytes")
    elif count:
        print(f"{count} may go, {total:,} bytes; nothing was removed", flush=True)
        print("  remove them: fettle gc --yes", file=sys.stderr)
    else:
        print("nothing may go")
