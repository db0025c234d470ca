"""Digest the code that each stage runs: function by function, with packaged data and versions.

    inputs/code/STAGE.json           {functions: {file: {name: digest}}, data: {file: sha256},
    inputs/code/STAGE/TARGET.json     packages: {package: version}}

DVC depends on these files, so an edit re-runs the stages that reach it, a comment re-runs none,
and `pip install -U` those that import the package (docs/decisions/0038).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from fettle import manifest, plugins
from fettle.errors import ProjectError
from fettle.hardware import precisions
from fettle.params import Params, load
from fettle.staleness import reachability
from fettle.staleness.input_history import Digests, differences, keep
from fettle.staleness.reachability import Picked, Reached, Sources, Walk
from fettle.staleness.source_index import Index

STAGES = "stages"
RUNNER = "stages.__main__"
RECORD = "run_stage"  # what the runner does of an artefact; the rest is how it reports an error
FIRST = "inputs"  # the stage that writes these files
LOCK = "requirements.lock"
LOADING = frozenset({"resolve", "names", "folder_path"})  # of fettle.plugins: who loads a file
# params.py resolves every plug-in to check its options; that choice is a parameter already.
CHECKS_ONLY = frozenset({"fettle.params", "fettle.plugins"})
# Where the name of a folder's plug-in may come from besides the stage's params: the plug-ins of
# these folders that the params name. A folder that is not here counts whole.
NAMED_IN: Mapping[str, tuple[str, ...]] = {
    "sources": (),
    "families": ("techniques",),  # a student is of another family
    "techniques": (),
    "targets": (),
    "runtimes": ("targets",),
}
QUANTIZERS = "quantizers"  # named by the precision of a target
RUNTIMES = "runtimes"  # a release carries the file of its runtime
SEARCHED = "techniques"  # the kind that `recipe: auto` may take any proposal from


def documents(index: Index, params: Params, tree: Path) -> dict[str, Digests]:
    """Digest every stage, by its address ("ingest", "export@x86_ort_int8")."""
    return {
        f"{stage}@{target}" if target else stage: of_stage(index, params, stage, target, tree)
        for stage, target in addresses(index, params)
    }


def addresses(index: Index, params: Params) -> Iterator[tuple[str, str | None]]:
    """Yield (stage, target) of every stage; target is None for one that is not run per target."""
    for module in index.sources.under(f"{STAGES}."):
        stage = module.removeprefix(f"{STAGES}.")
        if stage.startswith("_") or stage == FIRST or "." in stage:
            continue
        if _states(index, stage, "PER_TARGET"):
            yield from ((stage, target) for target in params.targets)
        else:
            yield stage, None


def of_stage(index: Index, params: Params, stage: str, target: str | None, tree: Path) -> Digests:
    """Digest what one stage reaches with these params; `tree` is the project."""
    asked = Asked(index, params, stage, target)
    walk = Walk(index.sources, asked.choose)
    walk.whole(f"{STAGES}.{stage}")
    walk.symbol(RUNNER, RECORD)
    found = walk.run()
    if found.unknown:  # somebody imports by a name that cannot be read off: all may matter
        for module in index.sources.files:
            walk.whole(module)
        found = walk.run()
    packages, data = set(found.packages), {path: index.label(path) for path in found.data}
    if _states(index, stage, "CARRIES_SOURCES"):
        carried = _carried(index, asked, params, tree)
        data |= {index.sources.files[module]: index.label_of(module) for module in carried}
        packages |= index.packages.required_by(_foreign(index, carried))
    data |= {path: f"targets/{path.name}" for path in asked.own.values()}
    files = {label: manifest.sha256_file(path) for path, label in data.items()}
    if _states(index, stage, "CARRIES_SOURCES") and (tree / LOCK).is_file():
        files[LOCK] = manifest.sha256_file(tree / LOCK)
    return {
        "functions": _functions(index.sources, index, found),
        "data": dict(sorted(files.items())),
        "packages": {name: index.packages.version(name) for name in sorted(packages)},
    }


class Asked:
    """Say which plug-ins one stage may load: those that its own params name."""

    def __init__(self, index: Index, params: Params, stage: str, target: str | None) -> None:
        self._index = index
        doc = params.model_dump(mode="json", by_alias=True)
        sections = _sections(index, stage)
        self.words = set(_words([_get(doc, at) for at in sections]))
        self.words |= {target} if target else set()
        files = plugins.project_files("targets")
        self.own = {name: path for name, path in files.items() if name in self.words}
        sees = {"compress", "compress.recipe"}.intersection(sections)
        self.searches = bool(sees) and doc["compress"]["recipe"] == "auto"

    def choose(self, verb: str, folder: str, name: str, module: str, seen: set[str]) -> Picked:
        """Answer for one call of fettle.plugins; see reachability.Choose."""
        if module in CHECKS_ONLY or verb not in LOADING:
            return {}
        if not folder:
            return dict.fromkeys(self._index.sources.files, "whole")
        prefix = f"{plugins.package_of(folder)}."
        if name:
            return {f"{prefix}{name}": "whole"}
        known = self._index.plugins(folder)
        if verb == "names" and (folder != SEARCHED or self.searches):
            if folder != SEARCHED:
                return {f"{prefix}{one}": "whole" for one in known}
            return {f"{prefix}{one}": self._searched(f"{prefix}{one}", one, seen) for one in known}
        return {f"{prefix}{one}": "whole" for one in self.picked(folder)}

    def picked(self, folder: str) -> list[str]:
        """List the plug-ins of a folder that a computed name may give: all, if nobody names one."""
        known = self._index.plugins(folder)
        if folder == QUANTIZERS:
            return [one for one in known if one in self._quantizers()]
        if folder not in NAMED_IN:
            return known
        words = set(self.words)
        for other in NAMED_IN[folder]:
            chosen = [one for one in self._index.plugins(other) if one in self.words]
            if other == SEARCHED and self.searches:
                chosen = self._index.plugins(other)
            for one in chosen:
                table = self._index.sources.read(f"{plugins.package_of(other)}.{one}")
                words.update(text for symbol in table.symbols.values() for text in symbol.strings)
        if "targets" in (folder, *NAMED_IN[folder]):
            words.update(text for path in self.own.values() for text in _constants(path))
        elsewhere = (folder == SEARCHED and self.searches) or (folder == "targets" and self.own)
        return [one for one in known if one in words] or ([] if elsewhere else known)

    def _quantizers(self) -> set[str | None]:
        """Name the quantizers of the targets that this stage's params name."""
        known = [*self._index.plugins("targets"), *self.own]
        targets = [one for one in known if one in self.words]
        records = [plugins.resolve("targets", target, where="targets").TARGET for target in targets]
        return {precisions.named(record.precision).quantizer for record in records}

    def _searched(self, module: str, name: str, seen: set[str]) -> str:
        """Say how a search takes a technique: whole if it can propose it, else for its claims."""
        proposes = "proposals" in self._index.sources.read(module).symbols
        return "whole" if proposes or name in seen | self.words else "claims"


def _constants(path: Path) -> set[str]:
    """List the texts in a file of the project's own: which runtime it names is one of them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()  # `plugins.resolve` tells it
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _functions(sources: Sources, index: Index, found: Reached) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for module, names in sorted(found.symbols.items()):
        table = sources.read(module)
        rows[index.label_of(module)] = {
            name: table.symbols[name].digest for name in sorted(names) if name in table.symbols
        }
    return rows


def _carried(index: Index, asked: Asked, params: Params, tree: Path) -> set[str]:
    """Name the modules whose text a release carries: its service's, and its runtime's."""
    entries = [f"{plugins.package_of(RUNTIMES)}.{one}" for one in asked.picked(RUNTIMES)]
    for path in sorted((tree / "bentos" / params.release.service).glob("*.py")):
        entries += index.imports_of(path)
    return reachability.files_of(index.sources, entries)


def _foreign(index: Index, modules: set[str]) -> set[str]:
    """Name the top-level modules of other packages that `modules` import, at any place in them."""
    found = set()
    for module in modules:
        for symbol in index.sources.read(module).symbols.values():
            found |= {execute.partition(".")[0] for execute in symbol.executes}
    return {one for one in found if one and not index.sources.is_ours(one)}


def _states(index: Index, stage: str, constant: str) -> bool:
    """Tell whether a stage file has this constant."""
    return constant in index.sources.read(f"{STAGES}.{stage}").symbols


def _sections(index: Index, stage: str) -> list[str]:
    """Return the parts of params.yaml a stage declares."""
    symbol = index.sources.read(f"{STAGES}.{stage}").symbols.get("SECTIONS")
    return symbol.strings if symbol else []


def _get(doc: object, dotted: str) -> object:
    for part in dotted.split("."):
        doc = doc.get(part) if isinstance(doc, Mapping) else None
    return doc


def _words(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _words(value)
    elif isinstance(node, list):
        for value in node:
            yield from _words(value)


def refresh(tree: Path, params: Params, state: Path) -> None:
    """Write `tree`/inputs/code for these params, unless nothing it depends on has changed.

    `state` is the folder of the caches. A file is touched only when its content changed.
    """
    index = Index.of_installed(state / "code")
    folder, record = tree / "inputs" / "code", tree / ".fettle" / "code" / "written.json"
    installed = _installed_key(index)
    key = manifest.digest_of(
        {
            "installed": installed,
            "params": json.dumps(params.model_dump(mode="json", by_alias=True), sort_keys=True),
            "project": _own_key(tree),
        }
    )
    if _stands(record, key, folder):
        return
    written: dict[str, str] = {}
    for address, document in documents(index, params, tree).items():
        stage, _, target = address.partition("@")
        path = _path(tree, stage, target or None)
        keep(tree, path, document)
        written[path.relative_to(folder).as_posix()] = manifest.sha256_file(path)
    for path in folder.rglob("*.json"):
        if path.relative_to(folder).as_posix() not in written:
            path.unlink()
    index.save()
    if index.is_settled:
        manifest.write_json(record, {"key": key, "installed": installed, "files": written})


def refuse_stale(tree: Path, state: Path, stage: str, target: str | None) -> None:
    """Hold the installed code against what DVC was told of this stage.

    Raises ProjectError when the stage would run other code: it was edited, or a package was
    upgraded, since the digests were written.
    """
    record, path = tree / ".fettle" / "code" / "written.json", _path(tree, stage, target)
    if not path.is_file():
        return
    index = Index.of_installed(state / "code")
    try:
        if json.loads(record.read_text())["installed"] == _installed_key(index):
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    now = of_stage(index, load(tree / "params.yaml"), stage, target, tree)
    if json.loads(path.read_text()) != now:
        raise ProjectError(
            f"{path.relative_to(tree)} is stale",
            got="; ".join(differences(json.loads(path.read_text()), now)[:3]),
            rule="an artefact is kept under the digest of the code that made it, and DVC was told "
            "of other code",
            fix="use `fettle run` or `dvc repro`, and let the code stand while they run",
        )


def _path(tree: Path, stage: str, target: str | None) -> Path:
    folder = tree / "inputs" / "code"
    return folder / stage / f"{target}.json" if target else folder / f"{stage}.json"


def _installed_key(index: Index) -> str:
    return manifest.digest_of({"sources": index.key(), "packages": index.packages.key()})


def _own_key(tree: Path) -> str:
    """Digest the project's own files that the digests look into: its services and its lock."""
    own = plugins.project_files("targets").values()
    paths = [*sorted((tree / "bentos").rglob("*.py")), *own, tree / LOCK]
    return " ".join(manifest.sha256_file(path) for path in paths if path.is_file())


def _stands(record: Path, key: str, folder: Path) -> bool:
    try:
        doc = json.loads(record.read_text())
        return bool(doc["key"] == key) and all(
            manifest.sha256_file(folder / name) == sha for name, sha in doc["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
