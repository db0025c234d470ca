"""API key at the router: a map that nginx includes, so that no body is taken from a caller without.

The file is this user's alone (0600) and has a drawn name: the configuration, which others may read,
changes with the key and says nothing of it. The releases compare the key again, in constant time.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

GLOB = "api-key-*.conf"


def text(key: str) -> str:
    """Return the maps: `$has_key` is 1 where a caller brings the key, as api_key_file.given reads.

    `Authorization: Bearer KEY` goes before `X-API-Key: KEY`. Letters count as they are written.
    """
    exact = "".join(letter if letter.isalnum() else f"\\x{ord(letter):02x}" for letter in key)
    return "\n".join(
        [
            "map $http_authorization $key_by_bearer {",
            f'    "~^(?i:bearer) +{exact} *$" 1;',
            '    "~*^bearer( |$)" 0;',
            "    default none;",
            "}",
            f'map $http_x_api_key $key_by_header {{ "~^{exact}$" 1; default 0; }}',
            'map "$key_by_bearer $key_by_header" $has_key { "1 0" 1; "1 1" 1; "none 1" 1; '
            "default 0; }",
            "",
        ]
    )


def write(folder: Path, key: str) -> str:
    """Write the maps into the router's `folder` unless they are there; return the file's name."""
    wanted = text(key)
    for path in sorted(folder.glob(GLOB)):
        if path.stat().st_mode & 0o777 == 0o600 and path.read_bytes() == wanted.encode():
            return path.name
        path.unlink()
    path = folder / GLOB.replace("*", secrets.token_hex(4))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(wanted)
    return path.name
