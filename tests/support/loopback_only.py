"""Run a command where only loopback exists: a network namespace of its own (Linux).

`python loopback_only.py COMMAND…` exits 77 when the system allows no namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # <linux/sched.h>
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # <linux/sockios.h>, <linux/if.h>
NOT_ALLOWED = 77


def enter() -> bool:
    """Move this process into an empty network with loopback up; False if not allowed."""
    libc = ctypes.CDLL(None)
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    if not enter():
        sys.exit(NOT_ALLOWED)
    os.execvp(sys.argv[1], sys.argv[1:])
