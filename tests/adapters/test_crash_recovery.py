"""What a killed run leaves behind is mended, and nothing that lives is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import tiny_graph

from fettle.adapters import crash_recovery, dvc_graph


def test_a_lock_is_cleared_only_when_nobody_living_holds_it(tree: Path) -> None:
    lock = tree / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    held = {"a.txt": {"write": {"pid": os.getpid(), "cmd": "dvc"}}}
    lock.write_text(json.dumps(held))
    assert not crash_recovery.clear_dead_locks(tree)
    assert lock.is_file()
    lock.write_text("")  # what a crash leaves
    assert crash_recovery.clear_dead_locks(tree)
    assert not lock.exists()


def test_a_half_written_lock_is_set_aside_and_the_cache_brings_the_stage_back(tree: Path) -> None:
    tiny_graph.run(tree, "first")
    whole = (tree / "dvc.lock").read_text()
    (tree / "dvc.lock").write_text(whole[: whole.index("params:")].rstrip() + "\n    - path:")
    assert crash_recovery.recover(tree) == [
        "a half-written dvc.lock was set aside; the cache has the finished stages"
    ]
    _, stale = dvc_graph.stale(tree, look_in_cache=True)
    assert stale["first"].restorable
    assert crash_recovery.recover(tree) == []
