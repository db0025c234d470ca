"""What a file imports, read from its text."""

from __future__ import annotations

import ast

import pytest

from fettle.import_statements import imported

CASES = [
    ("import a.b, c as d", "", ["a.b", "c"]),
    ("from a import b, c", "", ["a", "a.b", "a.c"]),
    ("from . import b", "p.q", ["p.q", "p.q.b"]),
    ("from .. import b", "p.q", ["p", "p.b"]),
    ("from .m import b", "p", ["p.m", "p.m.b"]),
    ("from . import b", "", ["b"]),
    ("def f():\n  import a", "", ["a"]),
    ("if TYPE_CHECKING:\n  import a", "", []),
    ("if typing.TYPE_CHECKING:\n  import a\nelse:\n  import b", "", ["b"]),
    ("if not TYPE_CHECKING:\n  import a\nelse:\n  import b", "", ["a"]),
    ("try:\n  import a\nexcept ImportError:\n  import b", "", ["a", "b"]),
]


@pytest.mark.parametrize(("text", "package", "names"), CASES)
def test_what_a_file_imports_is_named(text: str, package: str, names: list[str]) -> None:
    assert list(imported(ast.parse(text), package)) == names
