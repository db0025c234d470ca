"""Make a self-signed certificate and its key, two PEM files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def certificate(
    folder: Path, name: str = "one", *, begins_d: int = -1, ends_d: int = 2
) -> tuple[Path, Path]:
    """Write NAME.pem and NAME.key, valid for these days from now."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    named, now = x509.Name([]), datetime.now(UTC)
    built = x509.CertificateBuilder(named, named, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now + timedelta(days=begins_d))
    served = built.not_valid_after(now + timedelta(days=ends_d)).sign(key, hashes.SHA256())
    pair = (folder / f"{name}.pem", folder / f"{name}.key")
    pair[0].write_bytes(served.public_bytes(Encoding.PEM))
    pair[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair
