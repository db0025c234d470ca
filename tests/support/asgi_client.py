"""Send one request straight to an ASGI application, as a server would, and keep its answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from fettle.serving.asgi_messages import App, Message


@dataclass
class Answer:
    """What came back; `left` is what of the request was never read."""

    messages: list[Message]
    left: list[Message]

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        assert self.headers[b"content-length"] == str(len(self.body)).encode()
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        assert self.headers[b"content-type"] == b"application/json"
        return self.status, self.json["error"]


async def ask(
    app: App,
    *chunks: bytes,
    method: str = "POST",
    path: str = "/predict",
    client: tuple[str, int] | None = ("127.0.0.1", 5000),
    wait_s: float = 0,
    leaves: bool = False,
    **headers: str,
) -> Answer:
    """Send `chunks` as the body, `wait_s` apart; `leaves`: the client goes before its end."""
    parts = chunks or (b"",)
    waiting: list[Message] = [
        {"type": "http.request", "body": part, "more_body": leaves or index < len(parts) - 1}
        for index, part in enumerate(parts)
    ]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": client,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(wait_s)
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent, waiting)


def asked(app: App, *chunks: bytes, **options: Any) -> Answer:
    """Do the same from outside an event loop."""
    return asyncio.run(ask(app, *chunks, **options))
