"""Write a small DVC project of three stages, and run one through our door."""

from __future__ import annotations

import sys
from multiprocessing import forkserver
from pathlib import Path

from fettle.adapters import dvc_graph

DVC_YAML = """
stages:
  first:
    cmd: >-
      {python} -c "import time; from fettle.process_lifetime import die_with_parent as d; d();
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


def make(folder: Path, sleep: float) -> Path:
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n no_scm = true\n analytics = false\n")
    (folder / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable, sleep=sleep))
    (folder / "params.yaml").write_text("speed: 1\n")
    (folder / "source.txt").write_text("data")
    return folder


def run(tree: Path, name: str, *, timeout_s: float = 60) -> int:
    code, _ = dvc_graph.run_stage(
        dvc_graph.warm_parent(), tree, name, force=False, timeout_s=timeout_s, on_tick=lambda: None
    )
    return code


def make_fast(tree: Path) -> Path:
    (tree / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable, sleep=0))
    return tree


def stop() -> None:
    """End the warm process that runs stages."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # no public way to end it
