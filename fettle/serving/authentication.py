"""Authentication of every request: by API key, and loopback only without one.

Plain ASGI, so that it wraps any server and is tested without one. It sits outside BentoML's own
middleware: what is refused here costs no inference and no body is read for it.

    /livez /readyz /healthz    open to all (they say nothing but up or down)
    everything else            the key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`
    no key was set             loopback clients only, whatever address the server is bound to
    /                          BentoML's page, forbidden to load anything from elsewhere
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from fettle.errors import UserError
from fettle.serving import api_key_file
from fettle.serving.asgi_messages import App, Message, Receive, Send, headers, refuse

OPEN = frozenset({"/livez", "/readyz", "/healthz"})
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


class ApiKeyGuard:
    """Let a request through to `app`, or answer for it.

    `key` None means that there is none: then only loopback clients are served, and only under a
    loopback name, so that a web page cannot reach the server through a name that it controls.
    """

    def __init__(self, app: App, *, key: str | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["path"] in OPEN:
            return await self._app(scope, receive, send)
        refusal = self._refuse_caller(scope, headers(scope))
        if refusal:
            return await refuse(send, *refusal)
        passed = _without_strangers(send) if scope["path"] == PAGE else send
        return await self._app(scope, receive, passed)

    def _refuse_caller(
        self, scope: Message, given: Mapping[bytes, bytes]
    ) -> tuple[int, str] | None:
        if self._key is not None:
            return None if api_key_file.admits(self._key, given) else (401, api_key_file.REFUSAL)
        client = scope.get("client")
        if not client or not is_loopback(client[0]):
            return 403, "this server has no API key, so it answers loopback clients only"
        name = _host_name(given.get(b"host", b"localhost").decode("latin-1"))
        if not is_loopback(name):
            return 403, f"this server has no API key, so it answers to localhost only, not {name!r}"
        return None


def _host_name(host: str) -> str:
    """Take the port off a Host header: "[::1]:3000" → "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _without_strangers(send: Send) -> Send:
    """Forbid the browser to load anything of another host into the page that is sent."""

    async def with_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            policy = (b"content-security-policy", PAGE_POLICY)
            message = {**message, "headers": [*message.get("headers", []), policy]}
        await send(message)

    return with_policy
