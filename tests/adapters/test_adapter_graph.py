"""DVC through our door, on a small project of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fettle.adapters import graph
from fettle.errors import ProjectError

DVC_YAML = """
stages:
  first:
    cmd: >-
      {python} -c "import time; from fettle.tether import die_with_parent as d; d();
      time.sleep({sleep}); open('a.txt','w').write('1')"
    deps: [source.txt]
    params: [speed]
    outs: [a.txt]
  second:
    matrix:
      target: [p, q]
    cmd: {python} -c "open('b-${{item.target}}.txt','w').write('2')"
    deps: [a.txt]
    outs: ["b-${{item.target}}.txt"]
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make(tmp_path, sleep=0)


def make(folder: Path, sleep: float) -> Path:
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n no_scm = true\n analytics = false\n")
    (folder / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable, sleep=sleep))
    (folder / "params.yaml").write_text("speed: 1\n")
    (folder / "source.txt").write_text("data")
    return folder


def run(tree: Path, name: str, *, timeout_s: float = 60) -> int:
    code, _ = graph.run_stage(
        graph.warm_parent(), tree, name, force=False, timeout_s=timeout_s, on_tick=lambda: None
    )
    return code


@pytest.fixture(autouse=True)
def _no_warm_parent_left() -> Iterator[None]:
    yield
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # no public way to end it


def test_the_graph_comes_from_dvc_yaml_with_the_matrix_expanded(tree: Path) -> None:
    assert graph.load(tree) == {"first": [], "second@p": ["first"], "second@q": ["first"]}


def test_a_stage_runs_once_and_is_then_unchanged(tree: Path) -> None:
    assert run(tree, "first") == 0
    assert (tree / "a.txt").read_text() == "1"
    _, stale = graph.stale(tree)
    assert sorted(stale) == ["second@p", "second@q"]


def test_a_stale_stage_says_which_byte_or_parameter_changed(tree: Path) -> None:
    run(tree, "first")
    (tree / "params.yaml").write_text("speed: 2\n")
    (tree / "source.txt").write_text("other")
    _, stale = graph.stale(tree)
    assert set(stale["first"].reasons) == {"deps source.txt: modified", "params speed: modified"}
    assert not stale["first"].restorable


def test_an_earlier_result_is_known_to_be_restorable(tree: Path) -> None:
    run(tree, "first")
    (tree / "a.txt").unlink()
    _, stale = graph.stale(tree, look_in_cache=True)
    assert stale["first"].restorable
    assert graph.restore(tree, "first")
    assert (tree / "a.txt").read_text() == "1"


def test_downstream_follows_every_arrow(tree: Path) -> None:
    assert graph.downstream(graph.load(tree), {"first"}) == {"second@p", "second@q"}


def test_a_time_out_kills_the_stage_and_all_it_started(tmp_path: Path) -> None:
    tree = make(tmp_path, sleep=30)
    started = time.monotonic()
    assert run(tree, "first", timeout_s=2) != 0
    assert time.monotonic() - started < 15
    assert not (tree / "a.txt").exists()
    assert not processes_mentioning("time.sleep(30)")


def test_a_killed_run_leaves_no_orphan(tmp_path: Path) -> None:
    tree = make(tmp_path, sleep=31)
    parent = multiprocessing.get_context("spawn").Process(target=run, args=(tree, "first"))
    parent.start()
    wait_until(lambda: bool(processes_mentioning("time.sleep(31)")))
    parent.kill()
    wait_until(lambda: not processes_mentioning("time.sleep(31)"))
    graph.clear_dead_locks(tree)
    assert run(make_fast(tree), "first") == 0  # and the next run is not blocked by the dead one


def test_a_lock_is_cleared_only_when_nobody_living_holds_it(tree: Path) -> None:
    lock = tree / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    held = {"a.txt": {"write": {"pid": os.getpid(), "cmd": "dvc"}}}
    lock.write_text(json.dumps(held))
    assert not graph.clear_dead_locks(tree)
    assert lock.is_file()
    lock.write_text("")  # what a crash leaves
    assert graph.clear_dead_locks(tree)
    assert not lock.exists()


def make_fast(tree: Path) -> Path:
    (tree / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable, sleep=0))
    return tree


def wait_until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_mentioning(text: str) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args", "ww"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if text in line and "ps -eo" not in line]


def test_a_half_written_lock_is_set_aside_and_the_cache_brings_the_stage_back(tree: Path) -> None:
    run(tree, "first")
    whole = (tree / "dvc.lock").read_text()
    (tree / "dvc.lock").write_text(whole[: whole.index("params:")].rstrip() + "\n    - path:")
    assert graph.recover(tree) == [
        "a half-written dvc.lock was set aside; the cache has the finished stages"
    ]
    _, stale = graph.stale(tree, look_in_cache=True)
    assert stale["first"].restorable
    assert graph.recover(tree) == []


def test_a_broken_dvc_yaml_is_a_project_error(tree: Path) -> None:
    (tree / "dvc.yaml").write_text("stages: [\n")
    with pytest.raises(ProjectError, match="DVC refused"):
        graph.load(tree)
