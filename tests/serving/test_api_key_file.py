from __future__ import annotations

from pathlib import Path

import pytest

from fettle.errors import UserError
from fettle.serving import api_key_file

KEY = "a-key-of-some-length"


def beside(folder: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(folder)}


def test_a_key_is_made_for_its_owner_only(tmp_path: Path) -> None:
    file = api_key_file.make(beside(tmp_path))
    assert file == tmp_path / "fettle" / "api_key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    key = api_key_file.read(beside(tmp_path))
    assert key == file.read_text().strip()
    assert len(key) == 43  # 32 bytes in base64


def test_making_a_key_again_keeps_the_first(tmp_path: Path) -> None:
    first = api_key_file.make(beside(tmp_path)).read_bytes()
    assert api_key_file.make(beside(tmp_path)).read_bytes() == first


def test_two_keys_differ(tmp_path: Path) -> None:
    one, other = beside(tmp_path / "one"), beside(tmp_path / "other")
    assert api_key_file.make(one).read_text() != api_key_file.make(other).read_text()


def test_without_a_file_there_is_no_key(tmp_path: Path) -> None:
    assert api_key_file.read(beside(tmp_path)) is None


def test_the_home_folder_is_looked_in_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert api_key_file.path({}) == tmp_path / ".config" / "fettle" / "api_key"


def test_the_variable_wins_over_the_file(tmp_path: Path) -> None:
    api_key_file.make(beside(tmp_path))
    assert api_key_file.read({**beside(tmp_path), "FETTLE_API_KEY": f" {KEY}\n"}) == KEY


def test_a_blank_variable_is_as_none(tmp_path: Path) -> None:
    assert api_key_file.read({**beside(tmp_path), "FETTLE_API_KEY": "  "}) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    file = api_key_file.make(beside(tmp_path))
    file.chmod(mode)
    with pytest.raises(UserError) as caught:
        api_key_file.read(beside(tmp_path))
    assert str(caught.value) == (
        f"the API key in {file} can be read by others: got mode {mode:04o}; only its owner may "
        f"open it: mode 0600. Fix: chmod 600 {file}."
    )


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        api_key_file.read({"FETTLE_API_KEY_FILE": str(tmp_path / "no")})
    assert str(caught.value) == (
        f"FETTLE_API_KEY_FILE names no file: got {tmp_path / 'no'}. Fix: make one with "
        "`fettle doctor --make-key`, or unset FETTLE_API_KEY_FILE."
    )


@pytest.mark.parametrize(
    ("key", "got"),
    [
        ("", "nothing"),
        ("two words", "spaces or characters a header cannot carry"),
        ("schlüssel", "spaces or characters a header cannot carry"),
        ("a\x07b", "spaces or characters a header cannot carry"),
    ],
)
def test_a_file_without_a_usable_key_is_refused(tmp_path: Path, key: str, got: str) -> None:
    file = tmp_path / "key"
    file.write_text(key + "\n")
    file.chmod(0o600)
    with pytest.raises(UserError) as caught:
        api_key_file.read({"FETTLE_API_KEY_FILE": str(file)})
    assert str(caught.value) == (
        f"no usable API key in {file}: got {got}; a key is printable ASCII without spaces. "
        "Fix: make one with `fettle doctor --make-key`."
    )
