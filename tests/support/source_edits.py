"""A copy of our sources, edits of it, and the stages whose digest they change."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fettle import params
from fettle.params import Params
from fettle.staleness import code_digest
from fettle.staleness.source_index import Index

ROOT = Path(__file__).resolve().parents[2]
GRAPH: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
LISTED = (
    "targets=[x86_ort_fp32, x86_ort_int8]",
    "finetune.family=small_cnn",
    "finetune.options={}",
    "compress.recipe=[{use: prune, keep_fraction: 0.5}, {use: distil, epochs: 2}]",
)
EXPORTS = {"export@x86_ort_fp32", "export@x86_ort_int8"}
EVALUATES = {"evaluate@x86_ort_fp32", "evaluate@x86_ort_int8"}
FRONT = {"ingest", "validate", "finetune", "latency_table", "compress"}
BACK = {"select", "verdict", "package"}
ALL = FRONT | EXPORTS | EVALUATES | BACK
READERS = {"finetune", "compress", "verdict", "package"} | EXPORTS | EVALUATES  # of images


@dataclass(frozen=True)
class Copy:
    """A copy of our sources to edit, and the digests of every stage as they stood."""

    tree: Path
    before: dict[str, dict[str, dict[str, Any]]]

    def index(self) -> Index:
        return Index({name: self.tree / name for name in ("fettle", "stages")}, self.tree / "cache")

    def documents(self, settings: Params) -> dict[str, dict[str, dict[str, Any]]]:
        index = self.index()
        found = code_digest.documents(index, settings, self.tree)
        index.save()
        return found


def settings(*overrides: str) -> Params:
    return params.load(ROOT / "params.yaml", [*LISTED, *overrides])


Change = Callable[[str], str]  # a file's text before and after


def swap(old: str, new: str) -> Change:
    """Replace the first match of a pattern, which must be there."""

    def change(text: str) -> str:
        assert re.search(old, text, re.MULTILINE), old
        return re.sub(old, new, text, count=1, flags=re.MULTILINE)

    return change


def inside(name: str) -> Change:
    """Put a statement at the end of a function, or of a class."""

    def change(text: str) -> str:
        node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == name)
        lines = text.splitlines(keepends=True)
        first = node.body[-1]  # type: ignore[attr-defined]  # a function or a class
        heads = [first, *getattr(first, "decorator_list", ())]
        lines.insert(
            min(head.lineno for head in heads) - 1, " " * first.col_offset + "assert True\n"
        )
        return "".join(lines)

    return change


def above(line: str) -> Change:
    """Put a line before the text."""
    return lambda text: f"{line}\n{text}"


def changed(copy: Copy, after: dict[str, dict[str, dict[str, Any]]]) -> set[str]:
    return {name for name in after if after[name] != copy.before.get(name)}
