"""API key of the served releases: where it lies, who may read it, how it is made and checked.

The key comes from FETTLE_API_KEY, else from the file FETTLE_API_KEY_FILE, else from
`$XDG_CONFIG_HOME/fettle/api_key` (`~/.config/fettle/api_key`). A release carries this file, so it
needs the standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from fettle.errors import UserError

KEY = "FETTLE_API_KEY"
KEY_FILE = "FETTLE_API_KEY_FILE"
OTHERS = 0o077  # any of these mode bits lets somebody else at the file
REFUSAL = "this server needs its API key: `Authorization: Bearer KEY`"
BYTES = 32  # 256 random bits: what secrets.token_urlsafe advises


def path(environ: Mapping[str, str]) -> Path:
    """Return where the key file is looked for."""
    if environ.get(KEY_FILE):
        return Path(environ[KEY_FILE])
    return config_folder(environ) / "api_key"


def config_folder(environ: Mapping[str, str]) -> Path:
    """Return fettle's configuration folder of this user; not made.

    Raises UserError when the user has no home folder: a container's number without a name.
    """
    config = environ.get("XDG_CONFIG_HOME")
    if config:
        return Path(config) / "fettle"
    try:
        return Path.home() / ".config" / "fettle"
    except RuntimeError as err:
        raise UserError(
            "this user has no home folder",
            got=f"HOME is not set, and user {os.getuid()} is not in the system's list",
            rule="keys and built releases lie below it",
            fix="set HOME to a folder that can be written",
        ) from err


def read(environ: Mapping[str, str]) -> str | None:
    """Return the key, or None when there is none.

    Raises UserError when the file is open to others, named but missing, or holds no usable key.
    """
    given = environ.get(KEY, "").strip()
    if given:
        return _checked(given, KEY)
    file = path(environ)
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as err:
        if environ.get(KEY_FILE):
            raise UserError(
                f"{KEY_FILE} names no file",
                got=str(file),
                fix=f"make one with `fettle doctor --make-key`, or unset {KEY_FILE}",
            ) from err
        return None
    except OSError as err:
        raise _unusable(file, "read", err) from err
    if mode & OTHERS:
        raise UserError(
            f"the API key in {file} can be read by others",
            got=f"mode {mode & 0o777:04o}",
            rule="only its owner may open it: mode 0600",
            fix=f"chmod 600 {file}",
        )
    try:
        return _checked(file.read_text(errors="replace").strip(), str(file))
    except OSError as err:
        raise _unusable(file, "read", err) from err


def given(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the key that a request brings, by its headers (names in small letters); else b"".

    `Authorization: Bearer KEY` goes before `X-API-Key: KEY`.
    """
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def admits(key: str, headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether a request's headers bring this key.

    Both are hashed before they are compared: equal lengths, so that the time taken says nothing.
    """
    found, wanted = (
        hashlib.sha256(key_bytes).digest() for key_bytes in (given(headers), key.encode())
    )
    return hmac.compare_digest(found, wanted)


def make(environ: Mapping[str, str]) -> Path:
    """Write a new random key if there is no key file yet; return the file (mode 0600).

    Raises UserError when it cannot be written.
    """
    file = path(environ)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_urlsafe(BYTES) + "\n")
    except FileExistsError as err:
        if not file.is_file():
            raise _unusable(file, "written", err) from err
    except OSError as err:
        raise _unusable(file, "written", err) from err
    return file


def _unusable(file: Path, action: str, err: OSError) -> UserError:
    return UserError(
        f"the API key cannot be {action} at {file}",
        got=err.strerror or str(err),
        rule="a server beyond loopback asks for a key",
        fix=f"set {KEY}, or {KEY_FILE} to a file in a folder that can be written",
    )


def _checked(key: str, where: str) -> str:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"no usable API key in {where}",
            got="nothing" if not key else "spaces or characters a header cannot carry",
            rule="a key is printable ASCII without spaces",
            fix="make one with `fettle doctor --make-key`",
        )
    return key
