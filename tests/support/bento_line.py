"""A packaged release with its Bento, and requests to the classifier that it serves."""

from __future__ import annotations

import io
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import served
from PIL import Image
from tiny_project import pixels
from tiny_release import TinyRelease

from fettle.adapters import bento_store
from fettle.serving import api_key_file

BOUNDARY = "the-boundary"


class Line:
    """A packaged release, its Bento in a store of its own, and its server with a key."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = TinyRelease(root / "project")
        self.digest = str(self.work.package().facts.digest)
        self.env = served.environment(root / "served")
        self.store = Path(self.env["BENTOML_HOME"])
        self.tag = bento_store.build(
            self.work.release, name="tiny", version=self.digest[:12], home=self.store
        )
        file = api_key_file.make({"XDG_CONFIG_HOME": str(root / "keys")})
        self.key = file.read_text().strip()
        self.keyed = {**self.env, "FETTLE_API_KEY_FILE": str(file)}

    def command(self, what: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "bentoml", "serve", what, *options]


def shapes(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Images [8, 8]; image i shows class i % 3."""
    return [one[0] for one in pixels(count, seed=5)]


def png(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def form(*files: bytes, name: str = "image") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"; filename="a.png"\r\n'
        "content-type: image/png\r\n\r\n".encode()
        + file
        + b"\r\n"
        for file in files
    ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"
SMALL = png(shapes(1)[0])


def half_sent(port: int, body: bytes, key: str = "none") -> socket.socket:
    """Open a request and send its first half."""
    link = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    head += f"x-api-key: {key}\r\ncontent-type: image/png\r\n\r\n"
    link.sendall(head.encode() + body[: len(body) // 2])
    return link
