from __future__ import annotations

from pathlib import Path

import pytest

from fettle.adapters import bento_store
from fettle.cli import doctor
from fettle.release import signing


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder and no key in the environment."""
    for name in ("FETTLE_API_KEY", "FETTLE_API_KEY_FILE", "FETTLE_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "fettle"


def test_without_keys_the_doctor_says_who_makes_them() -> None:
    assert doctor._key().found == (
        "none yet: `fettle serve` makes one; `bentoml serve` by hand answers loopback only "
        "(--make-key makes it now)"
    )
    assert doctor._signing_key().found == "none yet: the first release makes one"
    assert doctor._key().ok
    assert doctor._signing_key().ok


def test_the_doctor_says_where_the_key_is_and_how_it_is_sent(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bento_store.make_key()
    assert doctor._key().found == (
        f"set in {config}/api_key; clients send it as `Authorization: Bearer KEY`"
    )
    monkeypatch.setenv("FETTLE_API_KEY", "secret")
    assert doctor._key().found == (
        "set in FETTLE_API_KEY; clients send it as `Authorization: Bearer KEY`"
    )


def test_a_key_that_others_can_read_is_bad(config: Path) -> None:
    bento_store.make_key().chmod(0o644)
    signing.make_key({"XDG_CONFIG_HOME": str(config.parent)}).chmod(0o640)
    for finding, name in ((doctor._key(), "api_key"), (doctor._signing_key(), "signing_key.pem")):
        assert not finding.ok
        assert finding.found == f"readable by others: {config}/{name}"
        assert finding.fix == f"chmod 600 {config}/{name}"
