"""Hostile clients, all without a key, and honest ones on slow links while the router reloads."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress

from benchmarks.chaos_campaign.campaign_project import CampaignProject
from benchmarks.chaos_campaign.injected_fault import FaultKind, InjectedFault

LINKS = 150
HOLD_S = 4.0
BODY_BYTES = 16 * 2**20  # as much as the service takes
SENT_BYTES = 4 * 2**20  # of each body: past every buffer
BODIES = 16
REQUEST = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def hostile(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Come without a key, many at once, in one of the ways that cost a server most."""
    attacks: dict[str, Callable[[int], list[socket.socket]]] = {
        "half a head, held": lambda port: _opened(port, LINKS, b"POST /predict HTTP/1.1\r\nHo"),
        "a huge head": lambda port: _opened(
            port, LINKS, f"{REQUEST}X-Long: {'a' * 2**16}\r\n\r\n".encode()
        ),
        "a thousand fields": lambda port: _opened(
            port, LINKS, (REQUEST + "".join(f"X-{n}: a\r\n" for n in range(1000)) + "\r\n").encode()
        ),
        "huge bodies": lambda port: _opened(port, BODIES, _head(BODY_BYTES) + b"\0" * SENT_BYTES),
        "slow bodies": lambda port: _opened(port, LINKS, _head(BODY_BYTES) + b"\0"),
        "a body beyond the cap": lambda port: _opened(port, BODIES, _head(2**33) + b"\0" * 65536),
        "alien bytes": lambda port: _opened(port, LINKS, rng.randbytes(4096)),
        "alien cookies and ids": lambda port: _opened(
            port, LINKS, REQUEST.encode() + b"Cookie: uid=\xff\xfe\r\nX-Request-Id: \xed\r\n\r\n"
        ),
    }
    target = rng.choice(sorted(attacks))
    links = attacks[target](project.serving.port)
    return InjectedFault(FaultKind.HOSTILE, target, HOLD_S, lambda: _close(links))


def reload(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Hold slow uploads of honest users open while the routes are changed."""
    key = f"X-API-Key: {project.key}\r\n".encode()
    head = _head(1000).replace(b"\r\n\r\n", b"\r\n" + key + b"\r\n")
    links = _opened(project.serving.port, 20, head + b"\0")
    verb = rng.choice(["pause", "promote", "resume", "abort"])
    project.fettle("canary", verb)
    return InjectedFault(
        FaultKind.RELOAD, f"20 slow uploads over `canary {verb}`", 1.0, lambda: _close(links)
    )


def _head(length: int) -> bytes:
    return f"{REQUEST}Content-Length: {length}\r\n\r\n".encode()


def _opened(port: int, count: int, data: bytes) -> list[socket.socket]:
    """Open links and send as much of `data` on each as is taken at once."""
    links = []
    for _ in range(count):
        link = socket.socket()
        link.settimeout(1.0)
        with suppress(OSError):
            link.connect(("127.0.0.1", port))
            link.sendall(data)
        links.append(link)
    return links


def _close(links: list[socket.socket]) -> None:
    for link in links:
        link.close()
