"""Certificates that are missing, of another key, expired, protected, in odd places."""

from __future__ import annotations

from pathlib import Path

import pytest
from certified import certificate
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fettle.errors import UserError
from fettle.rollout.router import certificates


def refusal(certificate: Path | None, key: Path | None) -> str:
    with pytest.raises(UserError) as caught:
        certificates.check(certificate, key)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_pair_is_taken_and_so_is_none_and_a_folder_with_a_space(tmp_path: Path) -> None:
    certificates.check(*certificate(tmp_path, "one"))
    certificates.check(*certificate(tmp_path / "my certs", "one"))
    certificates.check(None, None)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    served, key = certificate(tmp_path, "one")
    assert refusal(tmp_path / "none.pem", key) == (
        f"the certificate {tmp_path}/none.pem cannot be read: got No such file or directory; "
        "--certificate and --key name PEM files. Fix: mend the path, or who may read it."
    )
    assert refusal(served, tmp_path).startswith(f"the key {tmp_path} cannot be read: got ")


def test_one_of_the_two_is_refused(tmp_path: Path) -> None:
    served, _ = certificate(tmp_path, "one")
    assert refusal(served, None).startswith(
        f"TLS needs a certificate and its key: got only {served}; "
    )


def test_a_pair_that_does_not_belong_together_names_both(tmp_path: Path) -> None:
    served, other = certificate(tmp_path, "one")[0], certificate(tmp_path, "two")[1]
    assert refusal(served, other).startswith(
        f"the key {other} does not belong to the certificate {served}: got "
    )


def test_the_two_files_swapped_are_no_pem_of_their_kind(tmp_path: Path) -> None:
    served, key = certificate(tmp_path, "one")
    assert refusal(key, served).startswith(f"the certificate {key} is none: got ")
    assert refusal(served, served).startswith(f"the key {served} is none: got ")
    empty = tmp_path / "empty.pem"
    empty.touch()
    assert refusal(empty, key).startswith(f"the certificate {empty} is none: got ")


def test_a_key_with_a_password_is_refused_with_the_way_out(tmp_path: Path) -> None:
    served, key = certificate(tmp_path, "one")
    locked = tmp_path / "locked.key"
    opened, lock = load_pem_private_key(key.read_bytes(), None), BestAvailableEncryption(b"x")
    locked.write_bytes(opened.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    assert refusal(served, locked) == (
        f"the key {locked} is protected by a password; the router starts without a person who "
        f"could type it. Fix: openssl pkey -in {locked} -out plain.key, mode 0600, and name that."
    )


def test_a_path_that_nginx_reads_otherwise_is_refused(tmp_path: Path) -> None:
    pair = certificate(tmp_path / "a$b", "one")
    assert refusal(*pair).startswith(f"nginx cannot take the name of this file: got {pair[0]}; ")


def test_one_that_is_no_longer_or_not_yet_valid_is_refused(tmp_path: Path) -> None:
    old, new = (
        certificate(tmp_path, "old", begins_d=-9, ends_d=-8),
        certificate(tmp_path, "new", begins_d=1),
    )
    assert refusal(*old).startswith(f"the certificate {old[0]} is expired: got valid from ")
    assert refusal(*new).startswith(f"the certificate {new[0]} is not yet valid: got valid from ")
