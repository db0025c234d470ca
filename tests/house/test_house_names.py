"""Names: the field's term, each once; and what is private stays in its folder."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("fettle", "stages", "flows")
ROOMS = (*LIBRARY, "bentos", "benchmarks", "tools")

# What may be named twice, and why. Files: only __init__.py.
STEMS_TWICE = {"__init__"}
CLASSES_TWICE = {
    "Params",  # a plug-in's own options, beside the whole of params.yaml
    "Part",  # of a folder of images; of a chain of replaced layers
    "Server",  # of Prefect or MLflow; in an isolated toolchain's process
}

# A vocabulary of our own that was: what each is called now stands in docs/decisions/0043.
HOUSE_WORDS = (  # a word of it is the whole name of a file
    "arms attempts clones dead_runs deeds descent document evidence expansion faulty feedback "
    "foresight found guard guards habits intake ladder leftovers lines load lower mixed needs "
    "papers payoff place price recovery remarks revert sections survey tether warden watch wire "
    "words workbench"
)


def files(rooms: tuple[str, ...]) -> list[Path]:
    """List the Python files of some rooms."""
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def shown(path: Path) -> str:
    """Return a path as a person would say it."""
    return str(path.relative_to(ROOT))


def is_private(name: str) -> bool:
    """Tell whether a leading underscore says that a name is its folder's own."""
    return name.startswith("_") and not name.endswith("__")


def borrowed(source: str, package: str) -> Iterator[str]:
    """Name each private name of another package that a module of `package` imports or reads."""
    tree, modules = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name.partition(".")[0]] = alias.name
    ours = {as_: name for as_, name in modules.items() if name.partition(".")[0] in ROOMS}
    for name in ours.values():
        yield from _foreign(name, package)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = ours.get(node.value.id)
            # `from room import module`: a private name of a module is the module's folder's own
            if owner and owner.rpartition(".")[2].islower() and is_private(node.attr):
                yield from _foreign(f"{owner}.{node.attr}", package)


def _foreign(name: str, package: str) -> Iterator[str]:
    parts = name.split(".")
    for index, part in enumerate(parts):
        if is_private(part):
            above = parts[:index] if ROOT.joinpath(*parts[:index]).is_dir() else parts[: index - 1]
            if package != ".".join(above):
                yield name


def package_of(path: Path) -> str:
    """Return the package of a file: its folder."""
    return ".".join(path.parent.relative_to(ROOT).parts)


def test_nobody_imports_another_package_s_private_name() -> None:
    found = {
        shown(path): names
        for path in files(ROOMS)
        if (names := list(borrowed(path.read_text(), package_of(path))))
    }
    assert found == {}


def test_a_borrowed_private_name_is_found_in_each_of_its_forms() -> None:
    source = """
from fettle.data import _split
from fettle.data.splitting import _later
from fettle import manifest
import fettle.data._split as other
manifest._verify
"""
    assert sorted(borrowed(source, "stages")) == [
        "fettle.data._split",
        "fettle.data._split",
        "fettle.data.splitting._later",
        "fettle.manifest._verify",
    ]
    assert list(borrowed(source, "fettle.data")) == ["fettle.manifest._verify"]
    assert "fettle.data._split" in borrowed(source, "fettle")


def _twice(named: Iterator[tuple[str, Path]], allowed: set[str]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in named:
        places[name].append(shown(path))
    return {n: where for n, where in places.items() if len(where) > 1 and n not in allowed}


def _classes(rooms: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for path in files(rooms):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not is_private(node.name):
                yield node.name, path


def test_a_file_s_name_is_used_once() -> None:
    assert _twice(((p.stem, p) for p in files(LIBRARY)), STEMS_TWICE) == {}


def test_a_class_s_name_is_used_once() -> None:
    assert _twice(_classes(LIBRARY), CLASSES_TWICE) == {}


def test_what_may_be_named_twice_is() -> None:
    assert set(_twice(_classes(LIBRARY), set())) == CLASSES_TWICE
    assert set(_twice(((p.stem, p) for p in files(LIBRARY)), set())) == STEMS_TWICE


def test_no_file_is_named_in_a_language_of_our_own() -> None:
    words = HOUSE_WORDS.split()
    assert [shown(p) for p in files(ROOMS) if p.stem.lstrip("_") in words] == []


def test_the_words_and_the_rooms_are_there_to_be_looked_at() -> None:
    assert len(HOUSE_WORDS.split()) > 30
    assert len(files(ROOMS)) > 300
