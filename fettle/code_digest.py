"""Digest the code that a stage runs when it is installed, not part of the project's tree.

In this repository dvc.yaml names a stage's source files as deps. In a user's project those files
sit in the installed package, so `fettle init` writes the same graph with `inputs/code/STAGE.json`
in their place; this module makes those digests over exactly the files the graph here names.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from fettle.manifest import sha256_file
from fettle.params import Params

# The packages whose version can change what a stage writes, beside fettle's own code.
RUNTIMES = ("numpy", "onnx", "onnxruntime", "openvino", "pillow", "torch", "torch-pruning")
CODE = ("fettle/", "stages/", "bentos/")


def is_code(dep: str) -> bool:
    """Tell whether a dep of dvc.yaml is source code of the package (or its lock)."""
    return dep.startswith(CODE[:2]) or dep == "requirements.lock"


def of_stages(dvc_yaml: Path, params: Params) -> dict[str, dict[str, str]]:
    """Return {stage: {dep: digest}} for a project that runs the installed package.

    Reads the packaged dvc.yaml (the graph of the repository) for each stage's code deps.
    """
    from ruamel.yaml import YAML

    del dvc_yaml  # the project's own copy no longer names the files
    graph = YAML(typ="safe", pure=True).load((template() / "dvc.yaml").read_text())
    versions = _versions()
    out: dict[str, dict[str, str]] = {}
    for stage, node in graph["stages"].items():
        deps = [d for d in node["deps"] if is_code(d)]
        out[stage] = {dep: _digest(dep, params) for dep in deps} | {"versions": versions}
    return out


def template() -> Path:
    """Return the folder with the packaged dvc.yaml, params.yaml and bentos."""
    package = importlib.import_module("fettle.cli")
    return Path(next(iter(package.__path__))) / "template"


def _digest(dep: str, params: Params) -> str:
    dep = _fill(dep, params.model_dump(mode="json", by_alias=True))
    if dep == "requirements.lock":
        return _versions()
    package, _, rest = dep.partition("/")
    base = Path(next(iter(importlib.import_module(package).__path__)))
    path = base / rest
    paths = [path] if path.is_file() else sorted(path.rglob("*.py"))
    if "${item.target}" in dep:
        paths = sorted((base / "targets").glob("*.py"))
    lines = "\n".join(f"{p.relative_to(base)} {sha256_file(p)}" for p in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


def _fill(dep: str, values: Mapping[str, Any]) -> str:  # Any: a params tree
    def replace(match: re.Match[str]) -> str:
        node: Any = values  # Any: a params tree
        for part in match[1].split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return str(node) if node is not None else match[0]

    return re.sub(r"\$\{([\w.]+)\}", replace, dep)


def _versions() -> str:
    found = []
    for name in RUNTIMES:
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return " ".join(found)
