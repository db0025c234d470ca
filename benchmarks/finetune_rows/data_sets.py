"""Data sets of the fine-tuning benchmark: a project each, its images in splits, subsets of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fettle import manifest, params_scope
from fettle import project as projects
from fettle.cli import project_template
from fettle.data import image_table, split_reader
from fettle.data.split_reader import Images
from fettle.facts.ingest_facts import IngestFacts
from fettle.params import Params, load
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs
from stages import finetune

# name: folder below --data, and overrides. clothing and cifar10 bring their own splits.
DATA: dict[str, tuple[str, tuple[str, ...]]] = {
    "clothing": ("clothing", ("validate.class_imbalance_max=10",)),
    "flowers": ("flowers", ("validate.class_imbalance_max=10",)),
    "cifar10": ("cifar10", ()),
}


@dataclass(frozen=True, slots=True)
class DataSet:
    """A project whose images are read and validated; `judged` splits are never chosen by."""

    name: str
    tree: Path
    judged: tuple[str, ...]
    per_class: int | None = None

    @property
    def label(self) -> str:
        """Its name in a row: a part of the training images is another set."""
        return self.name if self.per_class is None else f"{self.name} ({self.per_class} a class)"

    def params(self, seed: int, *overrides: str) -> Params:
        """Read its params with another seed of the training."""
        return load(self.tree / "params.yaml", [f"seed={seed}", *overrides])

    def inputs(self, scratch: Path) -> Inputs:
        """Name what the finetune stage reads of it."""
        folders = {name: self.tree / "artifacts" / name for name in finetune.READS}
        return Inputs(folders, self.tree, scratch)

    def test(self, params: Params) -> Images:
        """The images that judge: for clothing its validation and test folders together."""
        parts = [split_reader.images(self.inputs(self.tree), params, name) for name in self.judged]
        first = parts[0]
        return replace(
            first,
            pixels=np.concatenate([part.pixels[:] for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            ids=[row for part in parts for row in part.ids],
            groups=[group for part in parts for group in part.groups],
        )

    def digest(self) -> str:
        """Digest of the rows that judge: their content, not their names."""
        table = pq.read_table(
            self.tree / "artifacts" / "ingest" / image_table.IMAGES,
            columns=["sha256"],
            filters=pc.field("split").isin(self.judged),
        )
        return hashlib.sha256("".join(sorted(table["sha256"].to_pylist())).encode()).hexdigest()


def prepare(name: str, data: Path, home: Path) -> DataSet:
    """Make a project of a data set's folder with `fettle init`'s files, read and validate it."""
    folder, overrides = DATA[name]
    tree = home / name
    if not (tree / "params.yaml").is_file():
        project_template.write_project(tree, photos=True)
        (tree / ".dvc").mkdir()
        (tree / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
        projects.set_local(tree, "data", data / folder)
        text = json.dumps(load(tree / "params.yaml", overrides).model_dump(by_alias=True))
        (tree / "params.yaml").write_text(text)
    project = projects.find(tree)
    os.environ.update(projects.environment(project))
    projects.refresh_inputs(project, load(tree / "params.yaml"))
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--quiet", "validate"],
        cwd=tree, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{name} could not be read:\n{done.stderr[-3000:]}")
    origins = manifest.read(tree / "artifacts" / "ingest", IngestFacts).facts.splits
    own = origins["validation"] == origins["test"] == "own"
    return DataSet(name, tree, ("validation", "test") if own else ("test",))


def few(whole: DataSet, tree: Path, *, per_class: int, seed: int) -> DataSet:
    """Keep so many training images a class, drawn by the seed; what judges stays whole."""
    table = pq.read_table(
        whole.tree / "artifacts" / "ingest" / image_table.IMAGES, columns=["row", "label", "split"]
    )
    passed = set(
        pq.read_table(whole.tree / "artifacts" / "validate" / image_table.ROWS)["row"].to_pylist()
    )
    rows, labels, splits = (table[name].to_pylist() for name in ("row", "label", "split"))
    draw = np.random.default_rng(seed)
    kept = {row for row, split in zip(rows, splits, strict=True) if split != "train"} & passed
    for label in sorted(set(labels)):
        own = [
            r for r, at, s in zip(rows, labels, splits, strict=True) if at == label and s == "train"
        ]
        own = sorted(set(own) & passed)
        kept |= {own[at] for at in draw.permutation(len(own))[:per_class]}
    (tree / "artifacts" / "validate").mkdir(parents=True)
    (tree / "artifacts" / "ingest").symlink_to(whole.tree / "artifacts" / "ingest")
    (tree / "params.yaml").write_text((whole.tree / "params.yaml").read_text())
    ordered = pq.read_table(whole.tree / "artifacts" / "validate" / image_table.ROWS)
    pq.write_table(
        ordered.filter(
            pc.is_in(ordered["row"], value_set=pc.cast(sorted(kept), ordered["row"].type))
        ),
        tree / "artifacts" / "validate" / image_table.ROWS,
    )
    return replace(whole, tree=tree, per_class=per_class)


def ours(one: DataSet, out: Path, *, seed: int) -> Params:
    """Run the finetune stage as `fettle run` does; return its settled params.

    A training that was killed goes on from `out`, and one that ended there is not run again.
    """
    params, ended = one.params(seed), out / "decided.json"
    if not ended.is_file():
        out.mkdir(parents=True, exist_ok=True)
        outputs = finetune.run(params, one.inputs(out / "scratch"), out, MemoryRecorder())
        manifest.write_json(ended, dict(outputs.facts.decided))
    return params_scope.settle(params, json.loads(ended.read_text()))
