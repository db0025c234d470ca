"""Signing of releases, offline, and verification before a start, with OpenSSF model-signing.

One elliptic key (P-256) a user, made when it is first needed: FETTLE_SIGNING_KEY, else
`$XDG_CONFIG_HOME/fettle/signing_key.pem` (mode 0600), its public half beside it as .pub. A release
has two signatures, beside it and never inside its digest:

    releases/DIGEST.sig          the release folder: model, sources, gate report, every other file
    releases/DIGEST.bento.sig    the Bento built of it, whole, bento.yaml included

The first signature of a Bento trusts what the build made; its sources must equal the release's.
model-signing takes 0.7 s to import, so that only what signs or verifies does.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.errors import TamperedError, UserError
from fettle.serving import api_key_file

if TYPE_CHECKING:
    from model_signing import hashing

KEY_FILE = "FETTLE_SIGNING_KEY"
OTHERS = 0o077  # any of these mode bits lets somebody else at the key
BYTECODE = "__pycache__"


def key_path(environ: Mapping[str, str]) -> Path:
    """Return where the private key is looked for."""
    if environ.get(KEY_FILE):
        return Path(environ[KEY_FILE])
    return api_key_file.config_folder(environ) / "signing_key.pem"


def make_key(environ: Mapping[str, str]) -> Path:
    """Write a new private key (mode 0600) and its public half if there is no key; return it.

    Raises UserError when it cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    file = key_path(environ)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(private)
        file.with_suffix(".pub").write_bytes(public)
    except FileExistsError:
        if file.is_file():
            return file
        raise _unwritable(file, "a folder stands in its place") from None
    except OSError as err:
        raise _unwritable(file, err.strerror or str(err)) from err
    return file


def _unwritable(file: Path, got: str) -> UserError:
    return UserError(
        f"the signing key cannot be written to {file}",
        got=got,
        rule="a release is signed before it is served",
        fix=f"set {KEY_FILE} to a file in a folder that can be written, or XDG_CONFIG_HOME to such "
        "a folder",
    )


def of_release(release: Path) -> Path:
    """Return where the signature of the release folder lies."""
    return release.with_name(f"{release.name}.sig")


def of_bento(release: Path) -> Path:
    """Return where the signature of the release's Bento lies."""
    return release.with_name(f"{release.name}.bento.sig")


def ensure(release: Path, built: Path, environ: Mapping[str, str]) -> None:
    """Sign a published release and its Bento, or verify the signatures that they have.

    Raises TamperedError when a signed folder has changed, UserError when the key cannot be used.
    """
    for folder, signature in ((release, of_release(release)), (built, of_bento(release))):
        if signature.is_file():
            verify(folder, signature, environ)
        else:
            sign(folder, signature, environ)


def verify_release(release: Path, built: Path, environ: Mapping[str, str]) -> None:
    """Refuse to start a release unless it and its Bento are what was signed.

    Raises TamperedError when a byte has changed or a file was added, UserError when there is no
    signature or no key to verify it with.
    """
    verify(release, of_release(release), environ)
    verify(built, of_bento(release), environ)


def sign(folder: Path, signature: Path, environ: Mapping[str, str]) -> None:
    """Write the signature of all that `folder` holds; makes the key when there is none."""
    from model_signing import signing

    key = make_key(environ)
    _check_key(key)
    _drop_bytecode(folder)
    temporary = signature.with_name(f".{signature.name}.{os.getpid()}")
    try:
        config = signing.Config()  # type: ignore[no-untyped-call]  # its __init__ is not typed
        signer = config.set_hashing_config(_hashing()).use_elliptic_key_signer(private_key=key)
        signer.sign(folder, temporary)
    except ValueError as err:
        raise UserError(
            f"{folder} cannot be signed",
            got=str(err),
            rule=f"{key} holds an elliptic private key, unencrypted PEM, of P-256, P-384 or P-521",
            fix="delete that key, and a new one is made; or set FETTLE_SIGNING_KEY to another",
        ) from err
    temporary.rename(signature)


def verify(
    folder: Path, signature: Path, environ: Mapping[str, str], *, public: Path | None = None
) -> None:
    """Compare all that `folder` holds with its signature; see `verify_release`.

    `public` is another's public key, this user's own where it is left out.
    """
    from model_signing import verifying

    public = public or key_path(environ).with_suffix(".pub")
    for file, what in ((signature, "signature"), (public, "public key to verify it with")):
        if not file.is_file():
            raise UserError(
                f"{folder.name} has no {what}",
                got=f"no file {file}",
                rule="a release is verified before it starts",
                fix="run `fettle run`, which signs what it publishes",
            )
    _drop_bytecode(folder)
    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]  # its __init__ is not typed
        verifier = config.set_hashing_config(_hashing())
        verifier.use_elliptic_key_verifier(public_key=public).verify(folder, signature)
    except Exception as err:  # it promises no types: ValueError, InvalidSignature, KeyError seen
        raise TamperedError(
            f"{folder} is not what was signed",
            got=_reason(err),
            rule=f"its files must match {signature.name}, made with the key of {public.name}",
            fix=f"do not serve it; delete {folder} and {signature}, then run `fettle run`, which "
            "makes and signs it again",
        ) from err


def _hashing() -> hashing.Config:
    """Hash every file, also those that git would know."""
    from model_signing import hashing

    config = hashing.Config()  # type: ignore[no-untyped-call]  # its __init__ is not typed
    return config.set_ignored_paths(paths=[], ignore_git_paths=False)


def _drop_bytecode(folder: Path) -> None:
    """Delete bytecode caches: nothing signed them, and Python would run them unread."""
    for cache in sorted(folder.rglob(BYTECODE)):
        shutil.rmtree(cache, ignore_errors=True)


def _check_key(key: Path) -> None:
    mode = key.stat().st_mode
    if mode & OTHERS:
        raise UserError(
            f"the signing key {key} can be read by others",
            got=f"mode {mode & 0o777:04o}",
            rule="only its owner may open it: mode 0600",
            fix=f"chmod 600 {key}",
        )


def _reason(err: Exception) -> str:
    """Name the files that differ; model-signing prints their digests as raw bytes."""
    text = str(err) or "a signature that does not belong to this key"
    kinds = {
        "changed": r"Hash mismatch for \W*'([^'\\]+)",
        "added": r"Extra files found in model '[^']*': ([^'\"\]]+)",
        "missing": r"Missing files in model '[^']*': ([^'\"\]]+)",
    }
    found = {kind: ", ".join(re.findall(pattern, text)) for kind, pattern in kinds.items()}
    named = "; ".join(f"{kind}: {files}" for kind, files in found.items() if files)
    return named or text.strip().rstrip(".")
