"""A tiny release, packaged and built as a Bento in a store of its own."""

from __future__ import annotations

import pytest
from bento_line import Line


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(tmp_path_factory.mktemp("line"))
