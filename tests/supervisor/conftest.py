from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rehearsed import Theatre

from fettle.serving import apikey


@pytest.fixture
def theatre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Theatre]:
    monkeypatch.setenv(apikey.KEY, "k")
    made = Theatre(tmp_path)
    yield made
    made.close()
