"""Fault injection: a release broken on purpose, for rehearsals and chaos tests.

`python -m fettle.rollout.supervisor.fault_injection MODE PORT BEHIND COMMAND …` starts the release
by COMMAND on the port BEHIND and passes every request on; `slow` adds SLOW_S to each answer,
`wrong` names the next class, `failing` answers every request with 500 once a file BREAK lies in its
working folder. The release's own files stay as they were signed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from fettle import process_lifetime
from fettle.adapters import bento_store
from fettle.rollout.router import model_servers

SLOW_S = 0.03  # the digits answer in 2 to 5 ms
BREAK = "break"


class Fault(StrEnum):
    """How the release is broken."""

    SLOW = "slow"
    WRONG = "wrong"
    FAILING = "failing"


class FaultProxy:
    """Stands before the server on `behind` (a port of loopback)."""

    def __init__(self, mode: Fault, behind: int) -> None:
        self._mode = mode
        self._behind = behind

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            back_in, back_out = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.close()
            return
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                back_out.write(await read_message(reader))
                writer.write(await self._broken(await read_message(back_in)))
                await writer.drain()
        for one in (writer, back_out):
            one.close()

    async def _broken(self, answer: bytes) -> bytes:
        match self._mode:
            case Fault.SLOW:
                await asyncio.sleep(SLOW_S)
            case Fault.WRONG:
                return wrong(answer)
            case Fault.FAILING:
                if Path(BREAK).exists():
                    return b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"
        return answer


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP message that states its length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0].strip() or b"0"
    return head + await reader.readexactly(int(length))


def wrong(answer: bytes) -> bytes:
    """Name the second likeliest class in place of the first, in the body and for the router."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return answer
    doc = json.loads(body)
    for one in doc:
        one.update(one["top"][1])
    changed = json.dumps(doc).encode()
    kept = [
        line
        for line in head.split(b"\r\n")
        if not line.lower().startswith((b"content-length:", b"x-fettle-prediction:"))
    ]
    return b"\r\n".join([*kept, b"Content-Length: %d" % len(changed), b"", changed])


def command(mode: Fault, bento: Path, port: int) -> list[str]:
    """Return the command that serves a release so."""
    behind = next(one for one in model_servers.free_ports(2) if one != port)
    front = [
        sys.executable,
        "-P",
        "-m",
        "fettle.rollout.supervisor.fault_injection",
        mode.value,
        str(port),
        str(behind),
    ]
    return [*front, *bento_store.serve_folder_command(bento, port=behind)]


async def main() -> None:
    """Start the release, then stand before it."""
    mode, port, behind, server_command = Fault(sys.argv[1]), *sys.argv[2:4], sys.argv[4:]
    server = subprocess.Popen(server_command, preexec_fn=process_lifetime.die_with_parent)
    try:
        front = FaultProxy(mode, int(behind))
        listener = await asyncio.start_server(front.serve, "127.0.0.1", int(port))
        await listener.serve_forever()
    finally:
        server.terminate()


if __name__ == "__main__":
    asyncio.run(main())
