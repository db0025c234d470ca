"""dvc.lock is written whole, and holds what DVC's own writer would have written."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import tiny_graph
from dvc.utils.serialize import load_yaml, modify_yaml

from fettle.adapters import dvc_lock

ENTRY: dict[str, Any] = {
    "cmd": "python -m stages " + "a-long-word " * 12,
    "deps": [OrderedDict(path="a.txt", hash="md5", md5="0" * 32, size=4)],
    "params": {"params.yaml": {"rate": 3e-4, "on": None, "name": "0123", "flag": True, "list": []}},
}


def written(path: Path, modify: Any) -> Any:
    for name in ("zeta", "alpha", "zeta"):  # a new file, a second stage, a stage run again
        with modify(str(path)) as doc:
            doc.setdefault("schema", "2.0")
            doc["stages"] = {**doc.get("stages", {}), name: ENTRY}
    return load_yaml(str(path))


def test_the_lock_holds_what_dvc_s_own_writer_writes(tmp_path: Path) -> None:
    ours = written(tmp_path / "ours.lock", dvc_lock.modify)
    theirs = written(tmp_path / "theirs.lock", modify_yaml)
    assert ours == theirs
    assert list(ours["stages"]) == list(theirs["stages"]) == ["zeta", "alpha"]


def test_a_failure_while_it_changes_leaves_the_old_lock(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    written(path, dvc_lock.modify)
    before = path.read_bytes()
    with pytest.raises(AttributeError), dvc_lock.modify(str(path)) as doc:
        doc.clear().nothing()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["dvc.lock"]


def test_a_stage_run_through_our_door_renames_its_lock_into_place(tree: Path) -> None:
    lock = tree / "dvc.lock"
    assert tiny_graph.run(tree, "first") == 0
    with lock.open() as held:  # DVC's writer would write into this very file
        before = held.read()
        assert tiny_graph.run(tree, "second@p") == 0
        held.seek(0)
        assert held.read() == before
    assert list(load_yaml(str(lock))["stages"]) == ["first", "second@p"]
