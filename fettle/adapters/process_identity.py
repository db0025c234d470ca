"""Process identity: pid and start time, since a pid alone may be a stranger's by now.

A process that has ended is dead, also where nobody waits for it (a zombie: the first process of a
container is seldom an init).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from fettle import manifest
from fettle.adapters import boot_clock
from fettle.json_values import read_object

TICK_S = 0.01  # of the kernel's clock of births
WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process: its number, and when it was born, as `birth` counts it."""

    pid: int
    born: float

    def alive(self) -> bool:
        """Say whether it still runs."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        try:
            process = psutil.Process(self.pid)
            if self.born > boot_clock.EPOCH:
                same = abs(process.create_time() - self.born) < 1
            else:
                same = abs(birth(self.pid) - self.born) < TICK_S / 2
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def age_s(self) -> float:
        """Return how long ago it was born; on Linux no step of the wall clock changes it."""
        if self.born > boot_clock.EPOCH:
            return time.time() - self.born
        return boot_clock.now_s() - self.born

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
    return ProcessIdentity(pid, birth(pid))


def birth(pid: int) -> float:
    """Return when a process was born. Raises psutil.Error when there is none.

    On Linux on the boot clock (boot_clock.py), so that no process of another boot looks the same.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return float(psutil.Process(pid).create_time())  # not Linux, or no such process
    # proc(5): field 22
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") + boot_clock.boot_number()


def wait_ended(processes: Sequence[psutil.Process], *, timeout_s: float) -> list[psutil.Process]:
    """Wait until processes have ended, zombies among them; return those that still run."""
    deadline = time.monotonic() + timeout_s
    left = list(processes)
    while left := [one for one in left if _runs(one)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(WAIT_S)
    return left


def _runs(process: psutil.Process) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


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
