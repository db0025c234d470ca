"""Guarded server: one release in the foreground, behind the router that guards a rollout's.

The release listens on loopback; the router has its public address, and refuses who brings no key,
who comes too often, and who never ends what he began.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fettle.adapters import bento_store
from fettle.rollout.router import model_servers, nginx_process, router_key
from fettle.rollout.router.nginx_config import Routes
from fettle.serving import api_key_file

STOPPED = (0, -signal.SIGINT, -signal.SIGTERM)


def serve(command: Callable[[int], list[str]], home: Path, *, host: str, port: int) -> int:
    """Serve until Ctrl-C or SIGTERM, or until the release ends; return its exit code.

    `command` says how the release is served on a port of loopback; `home` is its BENTOML_HOME.
    """
    inner, control = [one for one in model_servers.free_ports(3) if one != port][:2]
    folder = home / "router"
    folder.mkdir(parents=True, exist_ok=True)
    nginx_process.terminate(folder)  # what a killed one left: it holds the port
    place = nginx_process.place(folder, host=host, port=port, control=control)
    key = api_key_file.read(os.environ)
    key_file = router_key.write(folder, key) if key else None
    router = nginx_process.Nginx(replace(place, key_file=key_file, pages=True))
    router.set_routes(Routes(inner))
    environ = bento_store.serve_environment(os.environ, home)
    # of a session of its own: it is told by this process alone, once, what Ctrl-C tells both
    child = subprocess.Popen(command(inner), env=environ, start_new_session=True)
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if not stopped:
            stopped.append(number)
            child.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        code = child.wait()
    finally:
        router.stop()
    return 0 if stopped and code in STOPPED else code
