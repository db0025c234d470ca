"""A search that is killed goes on where it was, from its journal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_bench import Toy
from toy_search import fast, run

from fettle.recipes.search.trial import Move, Recipe, Result

TESTS = Path(__file__).resolve().parents[2]


class Killed(Exception):
    pass


class Mortal(Toy):
    """Dies at its n-th call, before or after the work, as kill -9 would have it."""

    def __init__(self, at: int, *, after: bool) -> None:
        super().__init__()
        self.at, self.after, self.calls = at, after, 0

    def _die(self, *, now: bool) -> None:
        if now and self.calls == self.at:
            raise Killed

    def evaluate(self, recipe: Recipe) -> Result:
        self.calls += 1
        self._die(now=not self.after)
        found = super().evaluate(recipe)
        self._die(now=self.after)
        return found

    def moves(self, recipe: Recipe) -> Sequence[Move]:
        self.calls += 1
        self._die(now=True)
        return super().moves(recipe)


@fast
@given(
    deaths=st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=5),
    torn=st.integers(0, 60),
)
def test_killed_at_random_points_it_ends_as_an_unbroken_search_and_repeats_nothing(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[tuple[int, bool]], torn: int
) -> None:
    folder = tmp_path_factory.mktemp("j")
    whole = run(Toy(), folder / "whole")
    finished: list[list[float]] = []
    for at, after in deaths:
        bench = Mortal(at, after=after)
        try:
            run(bench, folder / "broken")
        except Killed:
            text = (folder / "broken").read_bytes()
            half = b'{"kind": "result", "recipe": "half a line that a kill left behind, unread"}'
            (folder / "broken").write_bytes(text + half[:torn])
        journalled = bench.evaluated[:-1] if after else bench.evaluated
        finished += journalled
    last = Toy()
    found = run(last, folder / "broken")
    assert found == whole
    assert (folder / "broken").read_bytes() == (folder / "whole").read_bytes()
    everything = finished + last.evaluated
    assert len(everything) == len({tuple(one) for one in everything})


SCRIPT = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from toy_bench import Toy
from toy_search import run

class Slow(Toy):
    def evaluate(self, recipe):
        found = super().evaluate(recipe)
        time.sleep(0.02)
        with Path(sys.argv[2]).open("a") as log:
            log.write(f"{self.evaluated[-1]}\\n")
        return found

run(Slow(), Path(sys.argv[1]))
"""


def test_a_process_killed_with_sigkill_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = run(Toy(), tmp_path / "whole")
    journal, log = tmp_path / "journal", tmp_path / "log"
    command = [sys.executable, "-c", SCRIPT, str(journal), str(log)]
    paths = os.pathsep.join(map(str, (TESTS / "support", TESTS.parent)))
    environment = {**os.environ, "PYTHONPATH": paths}
    kills = 0
    for wanted in (2, 4, 6):  # killed when that many evaluations are in the log
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None:
            if log.is_file() and len(log.read_text().splitlines()) >= wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                process.wait()
            time.sleep(0.001)
    subprocess.run(command, env=environment, check=True)
    assert kills == 3
    assert journal.read_bytes() == (tmp_path / "whole").read_bytes()
    lines = log.read_text().splitlines()
    # the one line between an evaluation's end and its fsync may be written again, once a kill
    assert len(lines) - len(set(lines)) <= kills
    assert len(set(lines)) == len(whole.trials) - 1
