"""`fettle service`: serve this project again after every boot, by systemd."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated

import typer

app = typer.Typer(
    help="Serve this project again after every boot.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def service() -> None:
    """Serve this project again after every boot."""


@app.command()
def install(
    system: Annotated[
        bool, typer.Option("--system", help="For the whole machine; else for this user.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write it; else it is only printed.")] = False,
    print_: Annotated[
        bool, typer.Option("--print", help="Print it and write nothing, as without --yes.")
    ] = False,
) -> None:
    """Print a systemd unit that serves this project as it was served last, or write it (--yes).

    Example: fettle service install --yes
    """
    from fettle import project as projects
    from fettle.cli import systemd_unit

    home = projects.find()
    unit = systemd_unit.make(home.root, os.environ, system=system, user=getpass.getuser())
    if os.environ.get("FETTLE_API_KEY"):
        print(
            f"fettle: FETTLE_API_KEY is a secret and not in the unit: put it into {unit.env_file}, "
            "mode 0600",
            file=sys.stderr,
        )
    if print_ or not yes:
        print(unit.text, end="")
        print(f"nothing was written; --yes writes it to {unit.path}", file=sys.stderr)
        return
    systemd_unit.install(unit)
    print(f"written: {unit.path}; what serves now is stopped first: fettle canary stop")
    for line in unit.next_commands:
        print(f"  {line}")
