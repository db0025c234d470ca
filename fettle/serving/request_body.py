"""Request body reader, within bounds of size and time.

The size is refused by its Content-Length before a byte is read, and while reading when there is
none (chunked) or it lies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from fettle.serving.asgi_messages import Receive, Send, refusal
from fettle.serving.image_request import BadRequest

MAX_BYTES = 16 * 2**20  # a 12-megapixel PNG; a JSON batch of 30 RGB images of 224 px
TIMEOUT_S = 20.0  # 16 MiB at 7 Mbit/s
DRAIN_MAX_BYTES = 4 * MAX_BYTES  # read on after a 413


class ClientGone(Exception):
    """The client left before its body was complete; nobody waits for an answer."""


async def read(
    headers: Mapping[bytes, bytes], receive: Receive, *, max_bytes: int, timeout_s: float
) -> bytes:
    """Return the body.

    Raises BadRequest (400, 408 or 413), and ClientGone when the client has left.
    """
    length = headers.get(b"content-length", b"0")
    if not length.isdigit():
        raise BadRequest("the Content-Length is no number")
    too_large = BadRequest(f"the body is larger than {max_bytes} bytes", status=413)
    if len(length) > 20 or int(length) > max_bytes:  # int() itself is slow on 4,300 digits
        raise too_large
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read(receive, max_bytes)
    except TimeoutError:
        reason = f"the body did not arrive within {timeout_s:g} s"
        raise BadRequest(reason, status=408) from None
    if len(body) > max_bytes:
        raise too_large
    return body


async def refuse_size(receive: Receive, send: Send, reason: str, *, timeout_s: float) -> None:
    """Answer 413 at once, then read on for a while before the answer ends.

    A client that sends all before it reads (most libraries do) would be cut off by a server that
    closes on it, and never see why.
    """
    start, text = refusal(413, reason)
    await send(start)
    await send({**text, "more_body": True})
    with contextlib.suppress(TimeoutError, ClientGone):
        async with asyncio.timeout(timeout_s):
            await _read(receive, DRAIN_MAX_BYTES, keep=False)
    await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive, most: int, *, keep: bool = True) -> bytes:
    """Read until the body's end or beyond `most` bytes."""
    chunks, size, more = [], 0, True
    while more and size <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if keep:
            chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def replay(body: bytes, receive: Receive) -> Receive:
    """Give `body` as one message, then whatever the server says (a disconnect)."""
    given = False

    async def again() -> dict[str, object]:
        nonlocal given
        if given:
            return dict(await receive())
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
