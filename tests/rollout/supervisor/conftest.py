from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rehearsed import RolloutHarness

from fettle.release import signing
from fettle.serving import api_key_file


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloutHarness]:
    monkeypatch.setenv(api_key_file.KEY, "k")
    monkeypatch.setenv(signing.KEY_FILE, str(tmp_path / "key" / "signing.pem"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "store"))
    made = RolloutHarness(tmp_path)
    yield made
    made.close()
