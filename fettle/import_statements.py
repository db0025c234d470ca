"""Import statements of a source file, read and not run: the dotted names of what it imports.

An import inside a function counts; one that only a type checker runs does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Name every module that a file of `package` imports, absolute and dotted.

    `from a import b` names a and a.b: which of them is a module, only the files tell.
    """
    for node in _run(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            if base:
                yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without the branches that only a type checker takes."""
    for child in ast.iter_child_nodes(tree):
        waiting: list[ast.AST] = [child]
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            negated = isinstance(child.test, ast.UnaryOp) and isinstance(child.test.op, ast.Not)
            waiting = [*(child.body if negated else child.orelse)]
        for node in waiting:
            yield node
            yield from _run(node)
