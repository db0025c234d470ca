"""Container without an init: a process that runs commands and never waits for their orphans.

What a command leaves running becomes this process's child, and once killed it stays a zombie, as
where the first process of a container is no init. A line of standard input is a command as JSON, a
line of standard output what came of it: [code, output, errors].
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class ContainerWithoutInit:
    """Runs commands in `cwd`; one at a time."""

    def __init__(self, cwd: Path, env: Mapping[str, str], *, limit_s: float) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(limit_s)],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: Sequence[str]) -> tuple[int, str, str]:
        """Run a command; return its exit code, output and errors."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps(list(words)), file=self._child.stdin, flush=True)
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError("the process that runs the commands has died")
        code, out, err = cast("tuple[int, str, str]", json.loads(answer))
        return code, out, err

    def close(self) -> None:
        """End it; its children, dead ones too, become the next reaper's."""
        self._child.communicate()


def main() -> None:
    """Run the commands that come in until the end of standard input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    limit_s = float(sys.argv[1])
    for line in sys.stdin:
        try:
            done = subprocess.run(
                json.loads(line), capture_output=True, text=True, timeout=limit_s, check=False
            )
            answer = [done.returncode, done.stdout, done.stderr]
        except subprocess.TimeoutExpired:
            answer = [-1, "", f"it did not end within {limit_s:g} s"]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
