"""Process identity: pid and start time, since a pid alone may be a stranger's by now."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from fettle import manifest
from fettle.json_values import read_object


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process: its number, and when it was born (seconds since 1970)."""

    pid: int
    born: float

    def alive(self) -> bool:
        """Say whether it still runs."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born) < 1
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def end(self, *, timeout_s: float) -> bool:
        """Send SIGTERM and wait; SIGKILL after `timeout_s`. False when it did not run."""
        if not self.alive():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return True


def me() -> ProcessIdentity:
    """Return this process."""
    return of(os.getpid())


def of(pid: int) -> ProcessIdentity:
    """Return a process that runs now."""
    return ProcessIdentity(pid, psutil.Process(pid).create_time())


def write(path: Path, known: ProcessIdentity) -> None:
    """Note a process in a file."""
    manifest.write_json(path, asdict(known))


def read(path: Path) -> ProcessIdentity | None:
    """Return the process that a file notes, if it runs."""
    match read_object(path):
        case {"pid": int(pid), "born": float(born) | int(born), **further} if pid > 1:
            known = ProcessIdentity(pid, born)
            return known if not further and known.alive() else None
    return None  # no file, or a power cut emptied it


def spawn(
    command: list[str], log: Path, *, cwd: Path, env: Mapping[str, str] | None = None
) -> ProcessIdentity:
    """Start a process that outlives this one; its output goes to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    # Python warns of a Popen that is dropped while its process lives, which here is the purpose
    child.returncode = 0
    return of(child.pid)
