"""Stand before the whole server: the API key, loopback without one, and the size of a body.

Plain ASGI, so that it wraps any server and is tested without one. It sits outside BentoML's own
middleware: what is refused here costs no inference, no metric label and no log line of theirs.

    /livez /readyz /healthz    open to all (they say nothing but up or down)
    everything else            the key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`
    no key was set             loopback clients only, whatever address the server is bound to
    /                          BentoML's page, forbidden to load anything from elsewhere
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fettle.errors import UserError

Message = MutableMapping[str, Any]  # Any: ASGI states its messages as free-form mappings
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/livez", "/readyz", "/healthz"})
BODY_MAX_BYTES = 16 * 2**20  # a 12-megapixel PNG; a JSON batch of 30 RGB images of 224 px
BODY_TIMEOUT_S = 20.0  # 16 MiB at 7 Mbit/s
DRAIN_MAX_BYTES = 4 * BODY_MAX_BYTES  # read on after a 413
LOCAL_NAME = "localhost"
PAGE = "/"
# BentoML's page loads a tracking script from another host; the browser obeys this and does not
PAGE_POLICY = b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"


def check_bind(host: str, key: str | None) -> None:
    """Refuse to listen beyond loopback without a key.

    Raises UserError when `host` (an IP address) can be reached from elsewhere and `key` is None.
    """
    if key is None and not is_loopback(host):
        raise UserError(
            "this server has no API key, so it may listen on loopback only",
            got=f"host {host}, where anyone who reaches the port could use it",
            rule="`bentoml serve` listens on every address unless told otherwise",
            fix="add `--host 127.0.0.1`, or make a key with `fettle doctor --make-key` "
            "(or set FETTLE_API_KEY) and start again",
        )


def is_loopback(host: str) -> bool:
    """Tell whether an IP address is this machine's own; a name other than localhost is not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == LOCAL_NAME
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Guard:
    """Let a request through to `app`, with its body read whole, or answer for it.

    `key` None means that there is none: then only loopback clients are served, and only under a
    loopback name, so that a web page cannot reach the server through a name that it controls.
    """

    def __init__(
        self,
        app: App,
        *,
        key: str | None,
        body_max_bytes: int = BODY_MAX_BYTES,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._app = app
        self._key = None if key is None else _hash(key.encode())
        self._body_max_bytes = body_max_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name.lower(): value for name, value in scope["headers"]}
        if scope["path"] in OPEN:
            return await self._app(scope, receive, send)
        refusal = self._refuse_caller(scope, headers)
        if refusal:
            return await _answer(send, *refusal)
        answer = _without_strangers(send) if scope["path"] == PAGE else send
        return await self._with_body(scope, headers, receive, answer)

    def _refuse_caller(self, scope: Message, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if self._key is not None:
            if hmac.compare_digest(_hash(_given_key(headers)), self._key):
                return None
            return 401, "this server needs its API key: `Authorization: Bearer KEY`"
        client = scope.get("client")
        if not client or not is_loopback(client[0]):
            return 403, "this server has no API key, so it answers loopback clients only"
        name = _host_name(headers.get(b"host", b"localhost").decode("latin-1"))
        if not is_loopback(name):
            return 403, f"this server has no API key, so it answers to localhost only, not {name!r}"
        return None

    async def _with_body(
        self, scope: Message, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return await _answer(send, 400, "the Content-Length is no number")
        if not headers.get(b"content-type", b"").isascii():
            # BentoML's access log decodes it, and would cut the answer off with an error
            return await _answer(send, 400, "the Content-Type is no text")
        if int(length) > self._body_max_bytes:
            return await self._refuse_size(receive, send)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await _read(receive, self._body_max_bytes)
        except TimeoutError:
            text = f"the body did not arrive within {self._body_timeout_s:g} s"
            return await _answer(send, 408, text)
        if body is None:
            return None  # the client is gone
        if len(body) > self._body_max_bytes:
            return await self._refuse_size(receive, send)
        return await self._app(scope, _replay(body, receive), send)

    async def _refuse_size(self, receive: Receive, send: Send) -> None:
        """Answer 413 at once, then read on for a while before the answer ends.

        A client that sends all before it reads (most libraries do) would be cut off by a server
        that closes on it, and never see why.
        """
        start, text = _messages(413, f"the body is larger than {self._body_max_bytes} bytes")
        await send(start)
        await send({**text, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._body_timeout_s):
                await _read(receive, DRAIN_MAX_BYTES, keep=False)
        await send({"type": "http.response.body", "body": b""})


def _hash(key: bytes) -> bytes:
    """Hash before comparing: equal lengths, so the time taken says nothing about the key."""
    return hashlib.sha256(key).digest()


def _given_key(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def _host_name(host: str) -> str:
    """Take the port off a Host header: "[::1]:3000" → "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


async def _read(receive: Receive, most: int, *, keep: bool = True) -> bytes | None:
    """Read a body until its end or beyond `most` bytes; None when the client has gone."""
    chunks, size, more = [], 0, True
    while more and size <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if keep:
            chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give `body` as one message, then whatever the server says (a disconnect)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _without_strangers(send: Send) -> Send:
    """Forbid the browser to load anything of another host into the page that is sent."""

    async def with_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            policy = (b"content-security-policy", PAGE_POLICY)
            message = {**message, "headers": [*message.get("headers", []), policy]}
        await send(message)

    return with_policy


async def _answer(send: Send, status: int, error: str) -> None:
    for message in _messages(status, error):
        await send(message)


def _messages(status: int, error: str) -> tuple[Message, Message]:
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    start = {"type": "http.response.start", "status": status, "headers": headers}
    return start, {"type": "http.response.body", "body": body}
