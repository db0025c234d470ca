"""Find every source file a stage runs, and hold dvc.yaml's deps against it (`make graph` mends it).

A stage's code deps must cover its import closure, the plug-ins that a parameter may name, and the
lock: a file left out would leave a stale artefact in the cache with nobody told.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from pathlib import Path

import grimp
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
# Folders that a parameter picks one file of; DVC fills the name in.
PICKED = {
    "sources": "fettle/sources/${ingest.source}.py",
    "families": "fettle/families/${finetune.family}.py",
    "targets": "fettle/targets/${item.target}.py",
}
# Folders where a list or a record picks the files: the whole folder is a dep.
WHOLE = {f: f"fettle/{f}" for f in ("checks", "compress", "runtimes")}
# What a stage takes without an import: a style sheet it inlines, sources it copies.
TAKEN = {
    "validate": ("fettle/report/page.css",),
    "package": ("fettle/runtimes", "fettle/serving"),
}
# params.py resolves every plug-in to check its options; that choice is a parameter already.
CHECKS_ONLY = "fettle.params"
ALWAYS = ("requirements.lock", "stages/__main__.py")


def needed(stage: str, matrix: bool) -> list[str]:
    """Return the code deps a stage needs, sorted."""
    graph = grimp.build_graph("fettle", "stages", cache_dir=None)
    modules = _closure(graph, f"stages.{stage}") | _closure(graph, "stages.__main__")
    modules -= {m for m in modules if m.startswith("stages.") and not m.startswith("stages._")}
    modules |= {f"stages.{stage}"}
    deps = {*ALWAYS, *TAKEN.get(stage, ())}
    for folder in _plugin_folders(modules):
        plugins = {m for m in graph.modules if m.startswith(f"fettle.{folder}.")}
        chosen = {m for m in plugins if not m.rpartition(".")[2].startswith("_")}
        for plugin in chosen:
            modules |= _closure(graph, plugin) - {plugin}
        modules -= chosen if folder in PICKED else plugins
        if folder in WHOLE:
            deps.add(WHOLE[folder])
        else:
            deps.add(PICKED[folder] if folder != "targets" or matrix else "fettle/targets")
    files = {_file(m) for m in modules}
    covered = tuple(f"{d}/" for d in deps if not d.endswith((".py", ".lock")))
    return sorted(deps | {f for f in files if f and not f.startswith(covered)})


def _closure(graph: grimp.ImportGraph, module: str) -> set[str]:
    found = {module} | set(graph.find_upstream_modules(module))
    parents = {m.rpartition(".")[0] for m in found if "." in m}
    return found | {p for p in parents if p in graph.modules}


def _plugin_folders(modules: set[str]) -> set[str]:
    """Find `plugins.resolve("folder", …)` calls: imports that no import statement shows."""
    folders = set()
    for module in modules - {CHECKS_ONLY}:
        path = _file(module)
        for node in ast.walk(ast.parse((ROOT / path).read_text())) if path else ():
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("resolve", "names")
                and ast.unparse(node.func.value) == "plugins"
                and isinstance(node.args[0], ast.Constant)
            ):
                folders.add(str(node.args[0].value))
    folders |= {f for f in WHOLE if any(m.startswith(f"fettle.{f}") for m in modules)}
    return folders & (PICKED.keys() | WHOLE.keys())


def _file(module: str) -> str:
    """Return a module's file, or "" for an empty package file."""
    path = Path(*module.split("."))
    package = ROOT / path / "__init__.py"
    if package.is_file():
        return f"{path}/__init__.py" if package.read_text().strip() else ""
    return f"{path}.py"


def is_code(dep: str) -> bool:
    """Tell whether a dep of dvc.yaml is ours to check."""
    return bool(re.match(r"(fettle|stages)/|requirements\.lock$", dep))


def wanted_deps(stage: str, node: dict[str, list[str]]) -> list[str]:
    """Return the deps a stage of dvc.yaml should list: its data as given, then its code."""
    data = [dep for dep in node["deps"] if not is_code(dep)]
    return data + needed(stage, "matrix" in node)


def main() -> int:
    """Rewrite dvc.yaml's code deps; say what changed."""
    yaml = YAML(typ="rt")
    yaml.width = 100
    path = ROOT / "dvc.yaml"
    graph = yaml.load(path.read_text())
    changed = []
    for stage, node in graph["stages"].items():
        want = wanted_deps(stage, node)
        if list(node["deps"]) != want:
            changed.append(stage)
            node["deps"] = want
    if changed:
        out = io.StringIO()
        yaml.indent(mapping=2, sequence=4, offset=2)
        yaml.dump(graph, out)
        path.write_text(out.getvalue())
    sys.stdout.write(f"dvc.yaml: {', '.join(changed) or 'nothing'} changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
