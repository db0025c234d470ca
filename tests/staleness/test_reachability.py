"""What a module reaches is read off its source: nothing that it may run is missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fettle.staleness.reachability import Picked, Reached, Walk
from fettle.staleness.source_index import Index

B = "X = 1\nY = 2\n\n\ndef used():\n    return X\n\n\ndef unused():\n    return Y\n"
# how fettle.a uses fettle.b: its source, and what of fettle.b is reached
USES: dict[str, tuple[str, str, set[str]]] = {
    "a function": ("from fettle.b import used\nused()\n", B, {"used", "X"}),
    "a function under another name": ("from fettle.b import used as u\nu()\n", B, {"used", "X"}),
    "through the module": ("from fettle import b\nb.used()\n", B, {"used", "X"}),
    "through the whole path": ("import fettle.b\nfettle.b.used()\n", B, {"used", "X"}),
    "inside a function": (
        "def f():\n    from fettle.b import used\n    return used\n",
        B,
        {"used", "X"},
    ),
    "a constant": ("from fettle import b\nprint(b.Y)\n", B, {"Y"}),
    "the module handed on": ("from fettle import b\nprint(b)\n", B, {"used", "unused", "X", "Y"}),
    "a name made at run time": (
        "from fettle import b\nprint(getattr(b, 'us' + 'ed'))\n",
        B,
        {"used", "unused", "X", "Y"},
    ),
    "everything by a star": ("from fettle.b import *\n", B, {"used", "unused", "X", "Y"}),
    "a process of its own": ("print(['-m', 'fettle.b'])\n", B, {"used", "unused", "X", "Y"}),
    "what an import runs": (
        "import fettle.b\n",
        "def made():\n    return 1\n\n\nX = made()\n\n\ndef unused():\n    return 2\n",
        {"made", "X"},
    ),
    "what a decorator may register": (
        "import fettle.b\n",
        "TABLE = []\n\n\n@TABLE.append\ndef kept():\n    pass\n\n\ndef unused():\n    pass\n",
        {"TABLE", "kept"},
    ),
    "what reads its own names": (
        "from fettle.b import used\nused()\n",
        "def used():\n    return globals()\n\n\ndef other():\n    return 2\n",
        {"used", "other"},
    ),
    "a method, with its class": (
        "from fettle.b import C\nC().m()\n",
        "def deep():\n    return 1\n\n\nclass C:\n    def m(self):\n        return deep()\n",
        {"C", "deep"},
    ),
    "a name bound twice": (
        "from fettle.b import f\nf()\n",
        "def old():\n    return 1\n\n\nf = old\n\n\ndef f():\n    return 2\n",
        {"old", "f"},
    ),
    "only what a type checker reads": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from fettle.b import used\n",
        B,
        set(),
    ),
}


def walk(tree: Path, sources: dict[str, str]) -> Reached:
    """Reach from the whole of fettle.a."""
    for name, text in {"__init__": "", **sources}.items():
        path = tree / "fettle" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def none(*_: object) -> Picked:
        return {}

    made = Walk(Index({"fettle": tree / "fettle"}, tree / "cache").sources, none)
    made.whole("fettle.a")
    return made.run()


@pytest.mark.parametrize(("user", "used", "reached"), USES.values(), ids=USES.keys())
def test_of_a_module_that_is_reached_what(
    user: str, used: str, reached: set[str], tmp_path: Path
) -> None:
    found = walk(tmp_path, {"a": user, "b": used})
    assert found.symbols.get("fettle.b", set()) - {"<module>", "<script>"} == reached
    assert not found.unknown


def test_a_name_that_is_handed_on_leads_to_where_it_is_made(tmp_path: Path) -> None:
    sources = {"a": "from fettle.b import used\nused()\n", "b": "from fettle.c import used\n"}
    assert "used" in walk(tmp_path, {**sources, "c": B}).symbols["fettle.c"]


def test_packages_count_where_they_are_imported(tmp_path: Path) -> None:
    sources = {
        "a": "import fettle.b\nimport json\n",
        "b": "import numpy as np\n\n\ndef f():\n    import torch\n",
    }
    assert walk(tmp_path, sources).packages == {"numpy"}
    assert walk(tmp_path, {**sources, "a": "from fettle.b import f\nf()\n"}).packages == {
        "numpy",
        "torch",
    }


def test_an_import_of_a_computed_name_is_unknown_unless_the_module_states_it(
    tmp_path: Path,
) -> None:
    text = "import importlib\n\n\ndef f(name):\n    return importlib.import_module(name)\n"
    assert walk(tmp_path, {"a": text}).unknown == {"fettle.a"}
    found = walk(tmp_path, {"a": f'IMPORTS_BY_NAME = ("weights",)\n{text}'})
    assert not found.unknown
    assert found.packages == {"weights"}
