"""Be `fettle`: turn every error into one paragraph and an exit code.

Nothing heavy is imported here, so that `fettle --help` stays under a quarter of a second; and for
`fettle stage`, which DVC calls once a stage, not even the commands (fettle/cli/commands.py).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from fettle.errors import FettleError, OurFault


def __getattr__(name: str) -> Any:  # Any: typer's application
    if name == "app":
        from fettle.cli.commands import app

        return app
    raise AttributeError(name)


def main() -> None:
    """Run the command line; exit 0 done, 2 user error, 1 our fault."""
    words = sys.argv[1:]
    try:
        if words[:1] == ["stage"] and len(words) > 1 and not words[1].startswith("-"):
            from fettle.cli import stage

            stage.main(words[1:])
        else:
            from fettle.cli.commands import app

            app()
    except FettleError as err:
        print(f"fettle: {err}", file=sys.stderr)
        if isinstance(err, OurFault) and os.environ.get("FETTLE_DEBUG"):
            raise
        sys.exit(err.exit_code)


if __name__ == "__main__":
    main()
