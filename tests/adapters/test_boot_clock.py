"""The boot clock: no step of the wall clock moves it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from fettle.adapters import boot_clock
from fettle.adapters.boot_clock import SteadyClock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's CLOCK_BOOTTIME")


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_moves_no_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    clock, wall = SteadyClock(tmp_path / "clock.json"), time.time()
    before = boot_clock.now_s()
    assert abs(clock.now_s() - wall) < 5
    monkeypatch.setattr(time, "time", lambda: wall + step_s)
    assert 0 <= boot_clock.now_s() - before < 5
    assert abs(clock.now_s() - wall) < 5
    assert abs(SteadyClock(tmp_path / "clock.json").now_s() - wall) < 5  # a restart keeps it


def test_after_a_reboot_the_wall_clock_counts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, wall = tmp_path / "clock.json", time.time()
    SteadyClock(path)
    monkeypatch.setattr(boot_clock, "boot_number", lambda: 7)
    monkeypatch.setattr(time, "time", lambda: wall + 3600)
    assert abs(SteadyClock(path).now_s() - (wall + 3600)) < 5
    assert json.loads(path.read_text())["boot"] == 7


@pytest.mark.parametrize("text", ["", "{", '{"boot": "x"}', "[]", '{"boot": 1e999}'])
def test_a_damaged_file_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "clock.json"
    path.write_text(text)
    assert abs(SteadyClock(path).now_s() - time.time()) < 5
    assert set(json.loads(path.read_text())) == {"boot", "offset_s"}
