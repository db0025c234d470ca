"""The border of the command line: what a user reads where nobody foresaw the error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fettle(folder: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder`; `code` runs before it, to break something for it."""
    program = f"{code}\nfrom fettle.cli.main import main\nmain()"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ.pop("FETTLE_DEBUG", None)
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


def broken(error: str) -> str:
    """Return code that makes the command's first step raise `error`."""
    return f"import fettle.project as p\ndef find(): raise {error}\np.find = find"


BROKEN = broken("RuntimeError('first line\\nsecond')")


def test_an_error_nobody_foresaw_is_one_paragraph_and_a_log(tmp_path: Path) -> None:
    (tmp_path / ".fettle").mkdir()
    done = fettle(tmp_path, "run", code=BROKEN)
    assert done.returncode == 70
    (log,) = (tmp_path / ".fettle").glob("crash-*.log")
    assert done.stderr == (
        "fettle: `fettle run` met an error that nobody foresaw: got RuntimeError: first line. "
        f"Fix: run again; if it stays, report it with {log}, which holds the traceback.\n"
    )
    assert "Traceback (most recent call last)" in log.read_text()
    assert "RuntimeError: first line\nsecond" in log.read_text()


def test_outside_a_project_the_log_lies_in_the_temporary_folder(tmp_path: Path) -> None:
    done = fettle(tmp_path, "run", code=BROKEN)
    assert done.returncode == 70
    assert f"report it with {os.environ['TMPDIR']}/crash-" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_set_that_the_shell_split_is_named(tmp_path: Path) -> None:
    done = fettle(tmp_path, "run", "--set", "compress.recipe=[{use:", "prune}]")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "fettle: --set 'compress.recipe=[{use:' ends before its bracket is closed: the shell split "
        "it at a space. Fix: put the whole assignment in single quotes.\n"
    )


@pytest.mark.parametrize(
    "arguments", [("run", "--nonsense"), ("run", "extra", "--set", "seed=1"), ("nothing",)]
)
def test_another_wrong_command_line_is_click_s_to_explain(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = fettle(tmp_path, *arguments)
    assert done.returncode == 2
    assert "bracket" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_the_user_s_to_mend(tmp_path: Path) -> None:
    closed = broken("PermissionError(13, 'Permission denied', '/etc/x')")
    done = fettle(tmp_path, "run", code=closed)
    assert done.returncode == 2
    assert done.stderr == (
        "fettle: /etc/x cannot be used: got Permission denied. Fix: make it readable "
        "and writable for this user, or free some space, and run again.\n"
    )


@pytest.mark.parametrize(
    ("number", "said"), [(20, "Not a directory"), (40, "Too many levels of symbolic links")]
)
def test_a_home_that_is_a_file_or_leads_in_a_circle_is_the_user_s_to_mend(
    tmp_path: Path, number: int, said: str
) -> None:
    done = fettle(tmp_path, "run", code=broken(f"OSError({number}, '{said}', '/etc/x/.config')"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"fettle: /etc/x/.config cannot be used: got {said}. Fix: ")


def test_a_full_place_that_has_no_name_is_the_user_s_to_mend(tmp_path: Path) -> None:
    done = fettle(tmp_path, "run", code=broken("OSError(28, 'No space left on device')"))
    assert done.returncode == 2
    assert done.stderr.startswith(
        "fettle: something cannot be written: got No space left on device. Fix: free some space "
    )


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = fettle(gone, "run", code="import os; os.rmdir(os.getcwd())")
    assert done.returncode == 2
    assert done.stderr.startswith("fettle: the current folder is gone: got ")
