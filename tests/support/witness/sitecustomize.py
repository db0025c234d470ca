"""Write down every attempt of a Python process to reach beyond this machine.

Python imports this file at start when its folder is on PYTHONPATH. An audit hook cannot be taken
off again; it sees lookups and connects of every library, blocked or not.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys

LOG = os.environ.get("FETTLE_WITNESS")
HERE = {"localhost", "", "127.0.0.1", "::1", "0.0.0.0", "::"}


def _beyond(host: object) -> bool:
    if host is None or not isinstance(host, str | bytes):
        return False
    name = host.decode() if isinstance(host, bytes) else host
    if name in HERE or name == os.uname().nodename:
        return False
    with contextlib.suppress(ValueError):
        return not ipaddress.ip_address(name.partition("%")[0]).is_loopback
    return True


def _hook(event: str, args: tuple[object, ...]) -> None:
    host: object = None
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    if _beyond(host) and LOG:
        handle = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{event} {host!r} by {sys.argv[:3]}\n".encode())
        os.close(handle)


if LOG:
    sys.addaudithook(_hook)
