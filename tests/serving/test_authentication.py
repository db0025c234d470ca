from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

import pytest

from fettle.errors import UserError
from fettle.serving import authentication
from fettle.serving.asgi_messages import Message, Receive, Send
from fettle.serving.authentication import ApiKeyGuard

KEY = "a-key-of-some-length"
LOCAL, REMOTE = ("127.0.0.1", 5000), ("192.0.2.7", 5000)


class Client:
    """Send one request straight to a guard; note what reached the app behind it."""

    def __init__(self, **options: Any) -> None:
        self.reached: list[bytes] = []
        self.sent: list[Message] = []  # what went back for the last request
        self.left: list[Message] = []  # what of it was never read
        self.guard = ApiKeyGuard(self.app, **{"key": None, **options})

    async def app(self, _: Message, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message.get("more_body", False)
        self.reached.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def post(
        self,
        *chunks: bytes,
        path: str = "/predict",
        client: tuple[str, int] | None = LOCAL,
        **headers: str,
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        scope = {
            "type": "http",
            "path": path,
            "client": client,
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        }
        parts = chunks or (b"",)
        waiting = [
            {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
            for index, part in enumerate(parts)
        ]
        sent = self.sent = []
        self.left = waiting

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    def error(self, *chunks: bytes, **options: Any) -> tuple[int, str]:
        status, headers, body = self.post(*chunks, **options)
        assert headers[b"content-type"] == b"application/json"
        assert headers[b"content-length"] == str(len(body)).encode()
        return status, json.loads(body)["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"x_api_key": KEY},
        {"X_Api_Key": KEY},
    ],
)
@pytest.mark.parametrize("client", [LOCAL, REMOTE, None])
def test_the_key_opens_from_anywhere(headers: dict[str, str], client: Any) -> None:
    server = Client(key=KEY)
    assert server.post(b"hello", client=client, **headers)[0] == 200
    assert server.reached == [b"hello"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"x_api_key": ""},
        {"x_api_key": "schlüssel"},
    ],
)
def test_a_missing_or_wrong_key_is_turned_away(headers: dict[str, str]) -> None:
    server = Client(key=KEY)
    status, answered, body = server.post(b"hello", **headers)
    assert status == 401
    assert answered[b"www-authenticate"] == b"Bearer"
    assert json.loads(body) == {
        "error": "this server needs its API key: `Authorization: Bearer KEY`"
    }
    assert server.reached == []


def test_keys_are_compared_as_digests_of_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    server = Client(key=KEY)
    for given in ("x", KEY[:-1], KEY, "y" * 5000):
        server.post(x_api_key=given)
    assert len(compared) == 4
    assert {len(part) for pair in compared for part in pair} == {32}
    assert [one == other for one, other in compared] == [False, False, True, False]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_health_is_open_to_all(path: str) -> None:
    assert Client(key=KEY).post(path=path, client=REMOTE)[0] == 200
    assert Client(key=None).post(path=path, client=REMOTE)[0] == 200


@pytest.mark.parametrize("path", ["/", "/predict", "/metrics", "/docs.json", "/livez/", "/LIVEZ"])
def test_everything_else_needs_the_key(path: str) -> None:
    assert Client(key=KEY).post(path=path)[0] == 401


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1:3000", "[::1]:3000"])
def test_without_a_key_loopback_is_served(host: str) -> None:
    assert Client().post(host=host)[0] == 200
    assert Client().post(host=host, client=("::1", 1))[0] == 200


@pytest.mark.parametrize("client", [REMOTE, ("2001:db8::1", 1), None])
def test_without_a_key_others_are_turned_away(client: Any) -> None:
    server = Client()
    assert server.error(client=client, host="localhost") == (
        403,
        "this server has no API key, so it answers loopback clients only",
    )
    assert server.reached == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "192.0.2.7", ""])
def test_without_a_key_a_web_page_cannot_come_in_by_a_name_of_its_own(host: str) -> None:
    name = host.partition(":")[0]
    assert Client().error(host=host) == (
        403,
        f"this server has no API key, so it answers to localhost only, not {name!r}",
    )


def test_the_key_is_asked_before_the_body_is_read() -> None:
    server = Client(key=KEY)
    assert server.error(b"x" * 1000)[0] == 401
    assert len(server.left) == 1


def test_the_page_may_load_nothing_from_elsewhere() -> None:
    _, headers, _ = Client().post(path="/")
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'; ")
    assert headers[b"a"] == b"b"
    assert b"content-security-policy" not in Client().post(path="/predict")[1]


def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing may be read")

    asyncio.run(Client().guard({"type": "websocket", "path": "/livez"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost"])
def test_loopback_may_be_bound_without_a_key(host: str) -> None:
    authentication.check_bind(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "::ffff:192.0.2.7", "example", ""])
def test_anything_else_needs_a_key(host: str) -> None:
    authentication.check_bind(host, KEY)
    with pytest.raises(UserError) as caught:
        authentication.check_bind(host, None)
    assert str(caught.value) == (
        "this server has no API key, so it may listen on loopback only: got host "
        f"{host}, where anyone who reaches the port could use it; `bentoml serve` listens on every "
        "address unless told otherwise. Fix: add `--host 127.0.0.1`, or make a key with "
        "`fettle doctor --make-key` (or set FETTLE_API_KEY) and start again."
    )
