"""Tie a process to its parent: a killed run leaves no orphan that goes on writing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends.

    The signal fires when the *thread* that forked this process ends, so fork from one that lives
    as long as the work. macOS has no such call: there `die_with_owner` does the work alone.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # <linux/prctl.h>
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def die_with_owner(lifeline: Connection) -> None:  # type: ignore[explicit-any]  # its defaults
    """Kill this process's whole group, which it must lead, once the owner is gone.

    `lifeline` is the reading end of a pipe whose writing end only the owner holds: the kernel
    closes it at any death. For a process that is not the owner's child, because a warm parent
    forked it, and that one outlives the owner as long as it has children.
    """

    def watch() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
