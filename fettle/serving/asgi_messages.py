"""ASGI messages without a framework: the types, and an answer as its two messages.

BentoML's routing, middleware and typed inputs cost 0.75 ms of CPU a request (ADR 0027), more than a
small model's run.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# ASGI states its messages as free-form mappings
Message = MutableMapping[str, Any]  # type: ignore[explicit-any]  # as the standard has it
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
# what a client must know to go on: how to come in, when to come again, that this link is over
HINTS: dict[int, Headers] = {
    401: [(b"www-authenticate", b"Bearer")],
    408: [(b"connection", b"close")],
    413: [(b"connection", b"close")],
    429: [(b"retry-after", b"1")],
    503: [(b"retry-after", b"1")],
}


def headers(scope: Message) -> dict[bytes, bytes]:
    """Return a request's headers by lower-case name; of a repeated one the last."""
    return {name.lower(): value for name, value in scope["headers"]}


def messages(
    status: int, body: bytes, *, kind: bytes = JSON, more: Headers | None = None
) -> tuple[Message, Message]:
    """Make the start and the body message of an answer."""
    lines = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *(more or [])]
    start = {"type": "http.response.start", "status": status, "headers": lines}
    return start, {"type": "http.response.body", "body": body}


async def answer(
    send: Send, status: int, body: bytes, *, kind: bytes = JSON, more: Headers | None = None
) -> None:
    """Send one whole answer."""
    for message in messages(status, body, kind=kind, more=more):
        await send(message)


def refusal(status: int, reason: str, more: Headers | None = None) -> tuple[Message, Message]:
    """Make the answer that says why not: {"error": reason}."""
    body = json.dumps({"error": reason}).encode()
    return messages(status, body, more=[*HINTS.get(status, []), *(more or [])])


async def refuse(send: Send, status: int, reason: str, more: Headers | None = None) -> None:
    """Send the answer that says why not."""
    for message in refusal(status, reason, more):
        await send(message)
