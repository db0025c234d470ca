"""Load generator: asks a served release at a steady rate and counts what its users see.

`python -m fettle.rollout.supervisor.load_generator PORT PER_S FOLDER [plain]` sends the bodies of
FOLDER (NAME.CLASS.img, in order, for ever) to POST /predict until SIGTERM, then prints {"sent",
"failed", "statuses", "p50_ms", "p99_ms", "labelled"}. A request is failed unless its answer is 200
and whole. Every answer's label is sent to POST /feedback, unless it is `plain`. Latency counts from
the moment a request was due, so a server that stalls cannot hide it (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fettle.rollout.supervisor.shadow_traffic import HeldOutRequest, headers
from fettle.serving import api_key_file

CONNECTIONS = 8
TIMEOUT_S = 60.0
LABELS_AT_ONCE = 50


class LoadGenerator:
    """Asks at `per_s` over CONNECTIONS kept connections."""

    def __init__(
        self,
        port: int,
        per_s: float,
        held: Sequence[HeldOutRequest],
        key: str | None,
        *,
        labels: bool,
    ) -> None:
        self._with_labels = labels
        self._port, self._per_s, self._held, self._key = port, per_s, held, key
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.labelled = 0
        self._number = 0
        self._labels: list[dict[str, str]] = []
        self._began = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Ask until `stop`."""
        await asyncio.gather(*(self._connection() for _ in range(CONNECTIONS)))

    def stop(self) -> None:
        """End after the requests under way."""
        self._stop.set()

    def counts(self) -> dict[str, object]:
        """Return what was counted."""
        ordered = sorted(self.latencies_ms) or [0.0]
        sent = sum(self.statuses.values()) + sum(self.errors.values())
        return {
            "sent": sent,
            "failed": sent - self.statuses[200],
            "statuses": {str(code): n for code, n in sorted(self.statuses.items())},
            "errors": dict(self.errors),
            "p50_ms": round(ordered[len(ordered) // 2], 2),
            "p99_ms": round(ordered[len(ordered) * 99 // 100], 2),
            "labelled": self.labelled,
        }

    async def _connection(self) -> None:
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            due = self._began + self._number / self._per_s
            held = self._held[self._number % len(self._held)]
            self._number += 1
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                link = link or await asyncio.open_connection("127.0.0.1", self._port)
                async with asyncio.timeout(TIMEOUT_S):
                    status, head = await exchange(link, "/predict", held.body, self._key)
                self.statuses[status] += 1
                self.latencies_ms.append((time.monotonic() - due) * 1000)
                if b"connection: close" in head:
                    link[1].close()
                    link = None
                if self._with_labels:
                    await self._label(head, held.label)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as err:
                self.errors[type(err).__name__] += 1
                sys.stderr.write(f"{time.time():.3f} {err!r} reused={link is not None}\n")
                if link is not None:
                    link[1].close()
                link = None
        if link is not None:
            link[1].close()

    async def _label(self, head: bytes, label: str) -> None:
        number = head.partition(b"x-request-id:")[2].split(b"\r\n")[0].strip().decode()
        self._labels.append({"request_id": number, "label": label})
        if len(self._labels) < LABELS_AT_ONCE:
            return
        body, self._labels = json.dumps(self._labels).encode(), []
        await asyncio.sleep(0.5)  # late enough that the controller has seen the requests
        link = await asyncio.open_connection("127.0.0.1", self._port)
        status, _ = await exchange(link, "/feedback", body, self._key)
        self.labelled += LABELS_AT_ONCE if status == 200 else 0
        link[1].close()


async def exchange(
    link: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: bytes, key: str | None
) -> tuple[int, bytes]:
    """Send one request and read its answer whole: its status and its folded head."""
    reader, writer = link
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers(body, key).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].split(b"\r\n")[0].strip() or b"0"
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1]), head


def command(port: int, per_s: float, folder: Path, *, labels: bool = True) -> list[str]:
    """Return the command of a load process."""
    module = [sys.executable, "-P", "-m", "fettle.rollout.supervisor.load_generator"]
    return [*module, str(port), f"{per_s:g}", str(folder), *([] if labels else ["plain"])]


def write(folder: Path, held: Sequence[HeldOutRequest]) -> None:
    """Write requests where a load process reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(held):
        (folder / f"{number:05d}.{one.label}.img").write_bytes(one.body)


def read(folder: Path) -> list[HeldOutRequest]:
    """Read them back, in order."""
    return [
        HeldOutRequest(path.read_bytes(), path.name.split(".", 1)[1].rpartition(".")[0])
        for path in sorted(folder.glob("*.img"))
    ]


async def main() -> None:
    """Ask until SIGTERM; print the counts."""
    port, per_s, folder = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    load = LoadGenerator(
        port, per_s, read(folder), api_key_file.read(os.environ), labels="plain" not in sys.argv[4:]
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
    await load.run()
    sys.stdout.write(json.dumps(load.counts()) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
