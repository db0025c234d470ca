"""Be `fettle`: name the commands, turn every error into one paragraph and an exit code.

Nothing heavy is imported here, so that `fettle --help` stays under a quarter of a second.
"""

from __future__ import annotations

import os
import sys

import typer

from fettle.cli import canary, crossfit, doctor, init, report, run, serve, targets, ui, why
from fettle.errors import FettleError, OurFault

app = typer.Typer(
    help="Trim a pretrained model until it fits: a small, fast, gated release from your data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would cost a third of its time
)
for command in (
    run.run,
    report.report,
    serve.serve,
    ui.ui,
    why.why,
    crossfit.crossfit,
    doctor.doctor,
    init.init,
):
    app.command()(command)
app.add_typer(targets.app, name="targets")
app.add_typer(canary.app, name="canary")


def main() -> None:
    """Run the command line; exit 0 done, 2 user error, 1 our fault."""
    try:
        app()
    except FettleError as err:
        print(f"fettle: {err}", file=sys.stderr)
        if isinstance(err, OurFault) and os.environ.get("FETTLE_DEBUG"):
            raise
        sys.exit(err.exit_code)


if __name__ == "__main__":
    main()
