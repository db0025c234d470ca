"""Load a server over loopback with wrk (Debian's package wrk) and read what it measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MISSING = "wrk is not installed (apt-get install wrk)"

SCRIPT = """\
wrk.method = "POST"
local file = io.open(FOLDER .. "/body", "rb")
wrk.body = file:read("*all")
file:close()
for line in io.lines(FOLDER .. "/headers") do
  local name, value = line:match("^(.-): (.*)$")
  wrk.headers[name] = value
end
done = function(summary, latency, requests)
  local bad = summary.errors
  io.write(string.format(
    '{"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    bad.status, bad.connect + bad.read + bad.write + bad.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """One measurement: `refused` answers of 400 and above, `broken` links and time-outs."""

    connections: int
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, again and again, over each connection."""

    url: str
    body: bytes
    headers: dict[str, str]


def available() -> bool:
    """Tell whether wrk is there."""
    return shutil.which("wrk") is not None


def measure(request: Request, *, connections: int, seconds: float, scratch: Path) -> Load:
    """Send from one thread over `connections` links for `seconds`, each with one at a time."""
    (scratch / "body").write_bytes(request.body)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    (scratch / "headers").write_text("\n".join(lines) + "\n")
    (scratch / "load.lua").write_text(f"FOLDER = {json.dumps(str(scratch))}\n{SCRIPT}")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    words += ["--timeout", "30s", "-s", str(scratch / "load.lua"), request.url]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Load(
        connections,
        found["requests"],
        found["requests"] / (found["us"] / 1e6),
        found["p50_us"] / 1e3,
        found["p99_us"] / 1e3,
        found["refused"],
        found["broken"],
    )
