"""Be `fettle`: turn every error into one paragraph and an exit code.

Nothing heavy is imported here, so that `fettle --help` stays under a quarter of a second; and for
`fettle stage`, which DVC calls once a stage, not even the commands (fettle/cli/commands.py).
"""

from __future__ import annotations

import errno
import os
import sys

from fettle.errors import FettleError, OurFault, UserError

USAGE = 2  # click's own exit code for a wrong command line
REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.ELOOP),  # HOME is a file, a link leads in a circle
}
UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h


def __getattr__(name: str) -> object:
    if name == "app":
        from fettle.cli.commands import app

        return app
    raise AttributeError(name)


def main() -> None:
    """Run the command line; exit 0 done, 2 user error, 1 our fault, 70 an error nobody foresaw."""
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
    except SystemExit as done:
        if done.code == USAGE and (part := _split_set(sys.argv)):
            print(
                f"fettle: --set '{part}' ends before its bracket is closed: the shell split it at "
                "a space. Fix: put the whole assignment in single quotes.",
                file=sys.stderr,
            )
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as err:
        if os.environ.get("FETTLE_DEBUG"):
            raise
        if isinstance(err, OSError) and (err.errno in REFUSED or _no_folder()):
            print(f"fettle: {_refused(err)}", file=sys.stderr)
            sys.exit(UserError.exit_code)
        print(f"fettle: {_unforeseen(err)}", file=sys.stderr)
        sys.exit(UNFORESEEN)


def _split_set(arguments: list[str]) -> str | None:
    """Find a --set that the shell cut within brackets."""
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        text = value if flag == "--set" else flag.removeprefix("--set=")
        given = flag == "--set" or flag.startswith("--set=")
        if given and any(text.count(one) > text.count(two) for one, two in ("[]", "{}")):
            return text
    return None


def _refused(err: OSError) -> UserError:
    """Say which file the system refused: a closed or full place is the user's to mend."""
    if _no_folder():
        return UserError(
            "the current folder is gone",
            got=err.strerror,
            fix="cd into the project again, and run again",
        )
    if not err.filename:  # a write, whose error does not say where to
        return UserError(
            "something cannot be written",
            got=err.strerror,
            fix="free some space where the project, its temporary files and the output of this "
            "command go, and run again",
        )
    return UserError(
        f"{os.fsdecode(err.filename)} cannot be used",
        got=err.strerror,
        fix="make it readable and writable for this user, or free some space, and run again",
    )


def _no_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  # pathlib costs its import on a path that may be fine
    except FileNotFoundError:
        return True
    return False


def _unforeseen(err: Exception) -> FettleError:
    """Write the traceback to a log; return what the user reads in its place."""
    import tempfile
    import traceback
    from pathlib import Path

    text = "".join(traceback.format_exception(err))
    got = f"{type(err).__name__}: {str(err).strip() or 'no text'}".splitlines()[0]
    command = " ".join(sys.argv[1:2])
    for folder in (Path.cwd() / ".fettle", Path(tempfile.gettempdir())):
        log = folder / f"crash-{os.getpid()}.log"
        try:
            log.write_text(text, errors="backslashreplace")
        except OSError:
            continue  # no project here, or a folder that cannot be written
        fix = f"run again; if it stays, report it with {log}, which holds the traceback"
        return OurFault(f"`fettle {command}` met an error that nobody foresaw", got=got, fix=fix)
    fix = "run again with FETTLE_DEBUG=1 to see the traceback, and report it"
    return OurFault(f"`fettle {command}` met an error that nobody foresaw", got=got, fix=fix)


if __name__ == "__main__":
    main()
