from __future__ import annotations

from pathlib import Path

import pytest

from fettle.errors import TamperedError, UserError
from fettle.release import signing


class Signed:
    """A published release and its Bento, both signed with a key of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {"XDG_CONFIG_HOME": str(root / "config")}
        self.release = root / "releases" / "0123456789ab"
        self.bento = root / "store" / "digits" / "0123456789ab"
        for folder in (self.release, self.bento / "src"):
            (folder / "model").mkdir(parents=True)
            (folder / "model" / "model.onnx").write_bytes(b"weights")
            (folder / "gate.json").write_text('{"passed": true}')
        (self.bento / "bento.yaml").write_text("service: service")
        signing.ensure(self.release, self.bento, self.environ)

    def verify(self) -> None:
        signing.verify_release(self.release, self.bento, self.environ)

    @property
    def key(self) -> Path:
        return self.root / "config" / "fettle" / "signing_key.pem"


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_a_signed_release_is_verified_and_its_folder_is_as_it_was(signed: Signed) -> None:
    signed.verify()
    assert sorted(p.name for p in signed.release.iterdir()) == ["gate.json", "model"]
    assert sorted(p.name for p in signed.release.parent.iterdir()) == [
        "0123456789ab",
        "0123456789ab.bento.sig",
        "0123456789ab.sig",
    ]


def test_the_key_is_made_once_and_for_its_owner_only(signed: Signed) -> None:
    assert signed.key.stat().st_mode & 0o777 == 0o600
    made = signed.key.read_bytes()
    assert signing.make_key(signed.environ) == signed.key
    assert signed.key.read_bytes() == made


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("release", "model/model.onnx"),
        ("release", "gate.json"),
        ("bento", "src/model/model.onnx"),
        ("bento", "src/gate.json"),
        ("bento", "bento.yaml"),
    ],
)
def test_one_flipped_byte_refuses(signed: Signed, folder: str, file: str) -> None:
    flip(getattr(signed, folder) / file)
    with pytest.raises(TamperedError) as caught:
        signed.verify()
    changed = getattr(signed, folder)
    assert str(caught.value).startswith(
        f"{changed} is not what was signed: got changed: {file}; its files must match "
    )
    with pytest.raises(TamperedError):
        signing.ensure(signed.release, signed.bento, signed.environ)


def test_a_file_that_was_added_refuses(signed: Signed) -> None:
    (signed.release / "fettle.py").write_text("import evil")
    with pytest.raises(TamperedError, match=r"got added: fettle\.py; its"):
        signed.verify()


@pytest.mark.parametrize("name", [".gitignore", ".git/hooks"])
def test_no_name_is_overlooked(signed: Signed, name: str) -> None:
    file = signed.release / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("x")
    with pytest.raises(TamperedError):
        signed.verify()


def test_a_file_that_is_gone_refuses(signed: Signed) -> None:
    (signed.release / "gate.json").unlink()
    with pytest.raises(TamperedError, match=r"got missing: gate\.json; its"):
        signed.verify()


def test_a_flipped_byte_of_the_signature_refuses(signed: Signed) -> None:
    flip(signing.of_release(signed.release))
    with pytest.raises(TamperedError):
        signed.verify()


def test_a_release_of_another_key_refuses_with_the_next_step(signed: Signed) -> None:
    other = {"XDG_CONFIG_HOME": str(signed.root / "other")}
    signing.make_key(other)
    with pytest.raises(TamperedError) as caught:
        signing.verify_release(signed.release, signed.bento, other)
    signature = signing.of_release(signed.release)
    assert str(caught.value) == (
        f"{signed.release} is not what was signed: got Key mismatch: The public key hash in the "
        "signature's verification material does not match the provided public key; its files "
        "must match 0123456789ab.sig, made with the key of signing_key.pub. Fix: do not serve it; "
        f"delete {signed.release} and {signature}, then run `fettle run`, which makes and signs it "
        "again."
    )


def test_a_release_without_a_signature_is_refused(signed: Signed) -> None:
    signature = signing.of_bento(signed.release)
    signature.unlink()
    with pytest.raises(UserError) as caught:
        signed.verify()
    assert str(caught.value) == (
        f"0123456789ab has no signature: got no file {signature}; a release is verified before it "
        "starts. Fix: run `fettle run`, which signs what it publishes."
    )
    signing.ensure(signed.release, signed.bento, signed.environ)
    signed.verify()


def test_bytecode_is_deleted_before_anything_is_compared(signed: Signed) -> None:
    cache = signed.bento / "src" / "__pycache__"
    cache.mkdir()
    (cache / "service.cpython-311.pyc").write_bytes(b"anything")
    signed.verify()
    assert not cache.exists()


def test_a_key_that_others_can_read_does_not_sign(signed: Signed) -> None:
    signed.key.chmod(0o644)
    signing.of_release(signed.release).unlink()
    with pytest.raises(UserError) as caught:
        signing.ensure(signed.release, signed.bento, signed.environ)
    assert str(caught.value) == (
        f"the signing key {signed.key} can be read by others: got mode 0644; only its owner may "
        f"open it: mode 0600. Fix: chmod 600 {signed.key}."
    )
    assert not signing.of_release(signed.release).exists()


def test_a_key_that_is_none_does_not_sign(signed: Signed, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("no key")
    file.chmod(0o600)
    signature = tmp_path / "x.sig"
    with pytest.raises(UserError, match=r"cannot be signed: got .*delete that key"):
        signing.sign(signed.release, signature, {"FETTLE_SIGNING_KEY": str(file)})
    assert not signature.exists()
    assert [p.name for p in tmp_path.glob(".x.sig*")] == []


def test_the_key_is_looked_for_in_the_users_configuration(tmp_path: Path) -> None:
    found = signing.key_path({})
    assert found == Path("~/.config/fettle/signing_key.pem").expanduser()
    assert signing.key_path({"FETTLE_SIGNING_KEY": str(tmp_path)}) == tmp_path
