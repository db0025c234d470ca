"""Bento store: a release is built into it and started, by BentoML's command line only.

BentoML changes the working folder, `sys.path` and global state of the process that builds or
loads a service, so every call runs in a process of its own. One BENTOML_HOME serves one process:
a second `bentoml serve` with the same home deletes the first one's metrics (seen with 1.4.39), so
`serve_environment` gives each release a home of its own and `serve_command` names the Bento by its
path in the user's store.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from fettle import manifest
from fettle.errors import OurFault, ProjectError, TamperedError, UserError
from fettle.serving import api_key_file, release_bundle

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
PORT = 3000  # BentoML's own
KEEP_ALIVE_S = 75  # longer than a proxy keeps an idle link (nginx: 60), so that it closes first
DRAIN_S = 60  # a body may take 20 s to arrive and its answer 30 (fettle/serving)
BUILD_TIMEOUT_S = 120.0  # a build takes 2 s; a cold disk has been seen to take 8


def store(home: Path | None = None) -> Path:
    """Return the folder of the Bento store: `home`, else BENTOML_HOME, else ~/bentoml."""
    chosen = home or os.environ.get("BENTOML_HOME") or Path.home() / "bentoml"
    return Path(chosen) / "bentos"


def bento_folder(tag: str, home: Path | None = None) -> Path:
    """Return the folder of a built Bento.

    Raises ProjectError when the store has no such tag.
    """
    name, _, version = tag.partition(":")
    folder = store(home) / name / version
    if not version or not (folder / "bento.yaml").is_file():
        raise ProjectError(
            f"no Bento {tag} in the store",
            got=f"nothing in {folder}",
            rule="a tag reads NAME:VERSION",
            fix="see `bentoml list`, or run `fettle run`, which builds the last release again",
        )
    return folder


def build(release: Path, *, name: str, version: str, home: Path | None = None) -> str:
    """Build the release folder into the store; return its tag NAME:VERSION.

    A tag that is there already is kept: the version is the digest of what it holds. Raises
    TamperedError when it holds something else, OurFault when BentoML refuses the release.
    """
    tag = f"{name}:{version}"
    folder = store(home) / name / version
    if not (folder / "bento.yaml").is_file():
        command = [sys.executable, "-m", "bentoml", "build", "."]
        command += ["--name", name, "--version", version, "--output", "tag"]
        environment = {**os.environ, **quiet(), "BENTOML_HOME": str(store(home).parent.resolve())}
        done = subprocess.run(
            command,
            cwd=release,  # BentoML reads no file outside of its working folder
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
        # another process may have built the same tag meanwhile: its result is as good
        if done.returncode and not (folder / "bento.yaml").is_file():
            raise OurFault(
                f"BentoML could not build {tag}",
                got="; ".join((done.stderr or done.stdout).strip().splitlines()[-3:]),
                fix=f"run `{shlex.join(command)}` in {release} to see it whole",
            )
    _same(release, folder / "src", tag)
    return tag


def _same(release: Path, built: Path, tag: str) -> None:
    expected = manifest.tree_digest(release)
    _, found = release_bundle.verify(built)
    if found != expected:
        raise TamperedError(
            f"the Bento {tag} in the store is not this release",
            got=found[: manifest.SHORT],
            rule=f"its sources must digest to {expected[: manifest.SHORT]}",
            fix=f"`bentoml delete {tag} --yes`, then run `fettle run`, which builds it again",
        )


def quiet() -> dict[str, str]:
    """Return the variables that keep BentoML from reporting and Python from writing bytecode.

    A `__pycache__` among the sources would make them differ from what was packaged.
    """
    return {"BENTOML_DO_NOT_TRACK": "True", "PYTHONDONTWRITEBYTECODE": "1"}


def serve_command(
    tag: str, *, host: str = LOOPBACK, port: int = PORT, home: Path | None = None
) -> list[str]:
    """Return the command that serves a Bento, by its path in the user's store.

    Raises ProjectError when there is no such tag.
    """
    return serve_folder_command(bento_folder(tag, home), host=host, port=port)


def serve_folder_command(folder: Path, *, host: str = LOOPBACK, port: int = PORT) -> list[str]:
    """Return the command that serves the Bento in a folder."""
    command = [sys.executable, "-m", "bentoml", "serve", str(folder)]
    command += ["--host", host, "--port", str(port)]
    command += ["--timeout-keep-alive", str(KEEP_ALIVE_S)]
    return [*command, "--timeout-graceful-shutdown", str(DRAIN_S)]


def serve_environment(environ: Mapping[str, str], run_home: Path) -> dict[str, str]:
    """Return the environment of one server: quiet, with `run_home` (its own) as BENTOML_HOME."""
    return {**environ, **quiet(), "BENTOML_HOME": str(run_home)}


def serve_home(state: Path, *, host: str, port: int) -> Path:
    """Return the BENTOML_HOME of the server at `host`, `port`: below the project's state."""
    return state / "serve" / f"{host.replace(':', '_')}-{port}"


def check_port(host: str, port: int) -> None:
    """Raise UserError when nothing can listen on `port` of `host` (an IP address) now.

    BentoML itself ends in a traceback, and by then has deleted the metrics of its BENTOML_HOME.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as BentoML's own socket
        try:
            probe.bind((host, port))
        except OSError as err:
            raise UserError(
                f"the server cannot listen on {host} port {port}",
                got=err.strerror or str(err),
                rule="an address of this machine, and a port that no other server holds",
                fix=f"stop that server, or take another port: `fettle serve --port {port + 1}`",
            ) from err


def curl_line(
    *,
    host: str = LOOPBACK,
    port: int = PORT,
    image: str = "photo.jpg",
    keyed: bool | None = None,
    certificate: str | None = None,
) -> str:
    """Return a ready line that posts an image; the key is read from its file, never shown.

    `host` is what the server listens on; `keyed` None looks whether there is a key.
    """
    kind = "png" if image.endswith(".png") else "jpeg"
    header = f"-H 'content-type: image/{kind}'"
    if keyed if keyed is not None else api_key_file.read(os.environ) is not None:
        key = "$FETTLE_API_KEY" if os.environ.get(api_key_file.KEY) else f'$(cat "{key_path()}")'
        header += f' -H "Authorization: Bearer {key}"'
    near = LOOPBACK if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    proxied = any(name in os.environ for name in ("http_proxy", "all_proxy", "ALL_PROXY"))
    direct = "--noproxy '*' " if proxied else ""  # a proxy cannot reach loopback
    trusted = f"--cacert {shlex.quote(certificate)} " if certificate else ""
    url = f"{'https' if certificate else 'http'}://{near}:{port}/predict"
    return f"curl {direct}{trusted}{header} --data-binary @{image} {url}"


def key_path() -> Path:
    """Return where the API key is looked for."""
    return api_key_file.path(os.environ)


def make_key() -> Path:
    """Make the API key if there is none; return its file (mode 0600)."""
    return api_key_file.make(os.environ)


def ready(url: str, *, timeout_s: float = 0.0) -> bool:
    """Tell whether the server at `url` (no trailing slash) is ready, waiting up to `timeout_s`."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with direct.open(f"{url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
