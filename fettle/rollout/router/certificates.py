"""TLS certificate check: certificate and key are tried before a router serves with them.

nginx would refuse them too, but only when the routes are loaded: after a rollout has begun.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.errors import UserError
from fettle.rollout.router import nginx_config

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


def check(certificate: Path | None, key: Path | None) -> None:
    """Refuse a pair of PEM files that cannot serve TLS now; None twice is no TLS.

    Raises UserError naming the file that is missing, unreadable, no PEM, expired, not yet valid,
    or does not belong to the other.
    """
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise UserError(
            "TLS needs a certificate and its key",
            got=f"only {certificate or key}",
            rule="--certificate and --key name two PEM files",
            fix="name both files, or neither",
        )
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    served, public = _certificate(certificate), _public_key(key)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if served.public_key().public_bytes(*form) != public.public_bytes(*form):
        raise UserError(
            f"the key {key} does not belong to the certificate {certificate}",
            got="another public key in the certificate",
            rule="a pair is made together; a chain begins with the server's own certificate",
            fix="name the key that the certificate was made with",
        )
    now = datetime.now(UTC)
    begins, ends = served.not_valid_before_utc, served.not_valid_after_utc
    if not begins <= now <= ends:
        raise UserError(
            f"the certificate {certificate} is {'expired' if now > ends else 'not yet valid'}",
            got=f"valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC",
            rule="clients refuse it",
            fix="renew it, or mend this machine's clock",
        )


def _certificate(file: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(_read(file, "certificate"))[0]
    except ValueError as err:
        raise _no_pem(file, "certificate", err) from err


def _public_key(file: Path) -> PublicKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(_read(file, "key"), password=None).public_key()
    except TypeError as err:
        raise UserError(
            f"the key {file} is protected by a password",
            rule="the router starts without a person who could type it",
            fix=f"openssl pkey -in {file} -out plain.key, mode 0600, and name that",
        ) from err
    except (ValueError, UnsupportedAlgorithm) as err:
        raise _no_pem(file, "key", err) from err


def _read(file: Path, what: str) -> bytes:
    if not nginx_config.takes_path(file):
        raise nginx_config.refused_path(file)
    try:
        return file.read_bytes()
    except OSError as err:
        raise UserError(
            f"the {what} {file} cannot be read",
            got=err.strerror or str(err),
            rule="--certificate and --key name PEM files",
            fix="mend the path, or who may read it",
        ) from err


def _no_pem(file: Path, what: str, err: Exception) -> UserError:
    return UserError(
        f"the {what} {file} is none",
        got=str(err).partition(".")[0] or "nothing that can be read",
        rule=f"a PEM file with a {what}",
        fix="name another file",
    )
