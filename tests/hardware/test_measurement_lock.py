"""Stages share the machine or measure alone, in the order of asking."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fettle.hardware import measurement_lock
from fettle.hardware.measurement_lock import machine_lock

ROOT = Path(__file__).resolve().parents[2]
# Holds the machine as a stage would: says so, then waits for a line on stdin.
HOLD = """
import sys
from pathlib import Path
from fettle.hardware.measurement_lock import machine_lock
say = lambda text: print(text, flush=True)
with machine_lock(alone=sys.argv[3] == "alone", on_wait=say, folder=Path(sys.argv[4])):
    say("holds")
    sys.stdin.readline()
"""


def quiet(text: str) -> None:
    raise AssertionError(f"nobody holds the machine, yet: {text}")


class Holder:
    """Another process at the machine."""

    def __init__(self, how: str, folder: Path, stage: str = "finetune") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, "stages", stage, how, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def says(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate("\n", timeout=20)


def test_stages_that_work_share_the_machine(tmp_path: Path) -> None:
    with (
        machine_lock(alone=False, on_wait=quiet, folder=tmp_path),
        machine_lock(alone=False, on_wait=quiet, folder=tmp_path),
    ):
        pass
    with machine_lock(alone=True, on_wait=quiet, folder=tmp_path):
        pass


@pytest.mark.skipif(not measurement_lock.PROC_LOCKS.is_file(), reason="needs /proc/locks")
def test_a_waiting_stage_says_who_holds_the_machine(tmp_path: Path) -> None:
    with machine_lock(alone=False, on_wait=quiet, folder=tmp_path):
        waits = Holder("alone", tmp_path)
        text = waits.says()
    assert text.startswith(f"waiting for the machine: held by process {os.getpid()} (")
    assert text.endswith(f" in {Path.cwd()})")
    assert waits.says() == "holds"
    waits.end()


def test_a_stage_that_waits_to_measure_is_not_overtaken(tmp_path: Path) -> None:
    with machine_lock(alone=False, on_wait=quiet, folder=tmp_path):
        measures = Holder("alone", tmp_path)
        assert measures.says().startswith("waiting")
        late = Holder("shared", tmp_path)  # could share with us, but asked later
        assert late.says().startswith("waiting for the machine: held by ")
    assert measures.says() == "holds"
    time.sleep(0.2)
    assert late.process.poll() is None
    measures.end()
    assert late.says() == "holds"
    late.end()


def test_a_killed_holder_frees_the_machine(tmp_path: Path) -> None:
    holder = Holder("alone", tmp_path)
    assert holder.says() == "holds"
    holder.process.kill()
    holder.process.communicate(timeout=20)
    with machine_lock(alone=True, on_wait=quiet, folder=tmp_path):
        pass
