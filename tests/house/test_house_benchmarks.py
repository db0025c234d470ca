"""Every row file of the compression benchmark states what it measures and what it is held to."""

from __future__ import annotations

import importlib

import pytest

from benchmarks import compress


def test_the_row_files_are_found() -> None:
    assert "float_model" in compress.names()


@pytest.mark.parametrize("name", compress.names())
def test_a_row_file_states_what_it_measures(name: str) -> None:
    row = importlib.import_module(f"benchmarks.compress_rows.{name}")
    assert row.WHAT
    assert row.GOAL
    assert callable(row.run)
