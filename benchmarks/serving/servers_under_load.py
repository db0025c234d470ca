"""Start the release behind fettle's server, and behind others in environments of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import toolbox
from benchmarks.serving.wrk_load import Request
from fettle.adapters import bento_store
from fettle.preprocessing import Pixels

RIVALS = Path(__file__).resolve().parent.parent / "rival_servers"
KEY = "bench"
READY_S = 120.0
STOP_S = 15.0
JSON = {"content-type": "application/json"}
RAW = "application/octet-stream"
ORT = f"onnxruntime=={__import__('onnxruntime').__version__}"
LITSERVE = ("litserve==0.2.19", "numpy", ORT)
MLSERVER = ("mlserver==1.7.1", "uvloop==0.21.0", ORT)  # its workers die with a newer uvloop
MLFLOW = ("mlflow==3.17.2", "fastapi<0.151", "uvicorn", ORT)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers; `json` and `raw` are the same image, in its own protocol."""

    name: str
    json: Request
    raw: Request | None = None


def image(release: Path) -> Pixels:
    """Make one grey image [S, S] of noise in the model's own size."""
    _, channels, size_px, _ = json.loads((release / "release.json").read_text())["input"]["shape"]
    if channels != 1:
        sys.exit("this benchmark sends one-channel images: give --release of the digits")
    return np.random.default_rng(20).integers(0, 256, (size_px, size_px), dtype=np.uint8)


def port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], *, cwd: Path, log: Path, probe: Request, **added: str
) -> Iterator[None]:
    """Run a server until the block ends; it must answer `probe` with 200 first."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environ = {**os.environ, **threads, "PYTHONDONTWRITEBYTECODE": "1", **added}
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command), cwd=cwd, env=environ, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + READY_S
        while not answers(probe):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not answer:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(request: Request) -> bytes | None:
    """Send one request; return the body of a 200."""
    asked = urllib.request.Request(request.url, request.body, request.headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(asked, timeout=5) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return None


@contextmanager
def fettle(release: Path, scratch: Path) -> Iterator[Server]:
    """Serve the release as `fettle serve` does: key, logs and metrics on."""
    at = port()
    pixels = image(release)
    url, key = f"http://127.0.0.1:{at}/predict", {"x-api-key": KEY}
    as_json = Request(url, json.dumps(pixels.tolist()).encode(), {**JSON, **key})
    sizes = ",".join(map(str, pixels.shape))
    raw = Request(url, pixels.tobytes(), {"content-type": RAW, "x-shape": sizes, **key})
    command = [sys.executable, "-m", "bentoml", "serve", str(release)]
    command += ["--host", "127.0.0.1", "--port", str(at)]
    home = {**bento_store.quiet(), "BENTOML_HOME": str(scratch / "bentoml"), "FETTLE_API_KEY": KEY}
    log = scratch / "fettle.log"
    with running(command, cwd=scratch, log=log, probe=raw, **home):
        yield Server("fettle", as_json, raw)


@contextmanager
def litserve(release: Path, scratch: Path) -> Iterator[Server]:
    """Serve it with LitServe: two workers, batches of up to 32."""
    python, at = toolbox.venv("litserve", LITSERVE), port()
    body = json.dumps(image(release).tolist()).encode()
    as_json = Request(f"http://127.0.0.1:{at}/predict", body, JSON)
    command = [str(python), str(RIVALS / "lit.py"), str(at)]
    log = scratch / "litserve.log"
    with running(command, cwd=scratch, log=log, probe=as_json, FETTLE_RELEASE=str(release)):
        yield Server("LitServe", as_json)


@contextmanager
def mlserver(release: Path, scratch: Path) -> Iterator[Server]:
    """Serve it with MLServer: two parallel workers, its V2 protocol."""
    python, at = toolbox.venv("mlserver", MLSERVER), port()
    folder = scratch / "mlserver"
    folder.mkdir()
    for name in ("model.py", "mlserver_model.py"):
        shutil.copyfile(RIVALS / name, folder / name)
    ports = {"http_port": at, "grpc_port": port(), "metrics_port": port()}
    settings = {"host": "127.0.0.1", **ports, "parallel_workers": 2, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "release", "implementation": "mlserver_model.Release"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    pixels = image(release)
    tensor = {"name": "images", "shape": [1, *pixels.shape], "datatype": "UINT8"}
    body = {"inputs": [{**tensor, "data": pixels.ravel().tolist()}]}
    url = f"http://127.0.0.1:{at}/v2/models/release/infer"
    as_json = Request(url, json.dumps(body).encode(), JSON)
    command = [str(python.with_name("mlserver")), "start", "."]
    log = scratch / "mlserver.log"
    with running(command, cwd=folder, log=log, probe=as_json, FETTLE_RELEASE=str(release)):
        yield Server("MLServer", as_json)


@contextmanager
def mlflow(release: Path, scratch: Path) -> Iterator[Server]:
    """Serve it with `mlflow models serve`: two workers, its "inputs" JSON."""
    python, at = toolbox.venv("mlflow", MLFLOW), port()
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "FETTLE_RELEASE": str(release)}
    quiet |= {"PYTHONPATH": str(RIVALS), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    saved = scratch / "mlflow-model"
    subprocess.run(
        [str(python), str(RIVALS / "mlflow_model.py"), str(saved)],
        env={**os.environ, **quiet}, cwd=scratch, check=True, capture_output=True,
    )  # fmt: skip
    body = json.dumps({"inputs": [image(release).tolist()]}).encode()
    url = f"http://127.0.0.1:{at}/invocations"
    as_json = Request(url, body, JSON)
    command = [str(python.with_name("mlflow")), "models", "serve", "-m", str(saved)]
    command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(at), "--workers", "2"]
    with running(command, cwd=scratch, log=scratch / "mlflow.log", probe=as_json, **quiet):
        yield Server("mlflow models serve", as_json)
