"""Be one arm for the router's tests: an HTTP/1.1 server on loopback, in a process of its own.

`python arm_server.py PORT NAME FAIL_FILE [WAIT_S]` answers 200 with "NAME BYTES", or 500 while
FAIL_FILE exists, or the status that it names; with "hang" in that file it says nothing. A NAME
that is JSON is answered as it is.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name, fail = sys.argv[2], Path(sys.argv[3])
    wait_s = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int((head.partition(b"content-length:")[2].split(b"\r\n")[0]).strip() or b"0")
            body = await reader.readexactly(length)
            if fail.exists() and fail.read_text() == "hang":
                await asyncio.sleep(60)
            await asyncio.sleep(wait_s)
            status = b"200 OK"
            if fail.exists():
                status = b"%s Broken" % (fail.read_bytes() or b"500")
            text = (name if name.startswith("[") else f"{name} {len(body)}").encode()
            lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(text)]
            lines += [b"X-Fettle-Prediction: 3,1", b"X-Fettle-Input: 0.5,0.25"]
            writer.write(b"\r\n".join([*lines, b"", text]))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
