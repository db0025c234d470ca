"""Every log of the supervisor ends somewhere, also one that its writer holds open for weeks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fettle.rollout.router import access_log
from fettle.rollout.supervisor import log_rotation
from fettle.rollout.supervisor.state_layout import StateLayout

LINE = "0123456789" * 10


@pytest.mark.parametrize(
    "name",
    ["controller.log", "watchdog.log", "router/error.log", "arms/a/server.log", "rollouts/r/x.log"],
)
def test_a_log_that_is_written_on_is_cut_and_its_last_part_kept(tmp_path: Path, name: str) -> None:
    log = tmp_path / name
    log.parent.mkdir(parents=True, exist_ok=True)
    # a line in one write, as a logger does: `print` may make two, and be cut between them
    line = f"{LINE}\n".encode()
    script = f"import os, time\nwhile True: os.write(1, {line!r}); time.sleep(0.0005)"
    with log.open("ab") as out:
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=out)
    try:
        most = 0
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            log_rotation.rotate(StateLayout(tmp_path), most_bytes=10_000)
            kept = log.with_name(f"{log.name}.1")
            most = max(most, log.stat().st_size + (kept.stat().st_size if kept.exists() else 0))
            time.sleep(0.01)
    finally:
        writer.kill()
        writer.wait()
    assert 10_000 < most < 40_000
    assert set(log.read_text().splitlines()[:-1]) <= {LINE}  # no hole, no half of a line
    assert kept.read_text().startswith(LINE)


def test_the_router_s_log_is_not_cut_for_its_bytes_are_positions(tmp_path: Path) -> None:
    log = tmp_path / "router" / "attempts.log"
    log.parent.mkdir()
    log.write_text(LINE * 100)
    log_rotation.rotate(StateLayout(tmp_path), most_bytes=100)
    assert log.read_text() == LINE * 100


def test_of_the_router_s_logs_the_last_stay_and_positions_stay_what_they_are(
    tmp_path: Path,
) -> None:
    log = tmp_path / "attempts.log"
    for number in range(4):
        log.write_text(f"{number}\n" * 50)
        log.rename(access_log.rotated_path(log))
        old = time.time() - 60
        os.utime(max(tmp_path.glob("attempts-*")), (old, old))
    log.write_text("now\n")
    access_log.drop_oldest(log, 2)
    names = sorted(path.name for path in tmp_path.glob("attempts-*"))
    assert names == ["attempts-000000000200.log", "attempts-000000000300.log"]
    assert access_log.end_position(log) == 404
    bad: list[str] = []
    position = 0
    for _ in range(5):
        _, position = access_log.read(log, position, {}, bad=bad)
    assert position == 404  # a reader that was behind goes on with what is left
    assert len(bad) == 101


def test_answers_that_nobody_fetched_are_forgotten(tmp_path: Path) -> None:
    place = StateLayout(tmp_path)
    place.outbox.mkdir()
    now = time.time()
    for number in range(120):
        (place.outbox / f"{number:03d}.bad").touch()
    for name, age_s in (("old.json", 7200), ("young.json", 10)):
        (place.outbox / name).touch()
        os.utime(place.outbox / name, (now - age_s, now - age_s))
    log_rotation.rotate(place, now_s=now)
    left = sorted(path.name for path in place.outbox.iterdir())
    assert left == [*(f"{number:03d}.bad" for number in range(20, 120)), "young.json"]
