"""Symbol table of a source file: what each top-level function, class or constant is and refers to.

A symbol's digest is taken from its syntax tree without comments, docstrings and formatting, in a
form that every supported Python writes alike. The table is plain JSON, so that it can be cached.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

SymbolJson: TypeAlias = tuple[  # the fields of Symbol, in their order
    str,
    list[str],
    list[str],
    dict[str, list[str]],
    list[str],
    list[list[str]],
    list[str],
    bool,
]
TableJson: TypeAlias = tuple[dict[str, SymbolJson], list[str], list[str]]
TOP = "<module>"  # the statements that run when the module is imported
SCRIPT = "<script>"  # those below `if __name__ == "__main__":`
# Fields that say nothing of behaviour, or that one Python version has and another has not.
SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
# A decorator outside this list may register what it decorates, so that import alone has an effect.
INERT = frozenset(
    {
        "cache",
        "classmethod",
        "contextlib",
        "contextmanager",
        "dataclass",
        "dataclasses",
        "functools",
        "lru_cache",
        "overload",
        "property",
        "runtime_checkable",
        "staticmethod",
        "torch",
    }
)
DYNAMIC = frozenset({"globals", "eval", "exec", "__subclasses__", "__import__"})
STRING_MAX = 80  # longer is a sentence, no name of a file, a plug-in or a module


@dataclass(slots=True)
class Symbol:
    """One top-level function, class or constant; or TOP, all that an import runs besides.

    `refs` are dotted names as written ("manifest.read"); `imports` {bound name: [module, name in
    it or ""]}; `executes` the modules those imports run; `plugins` the calls [verb, folder, name]
    of fettle.plugins ("" where no constant is given); `by_name` the constant starts of
    `import_module` calls ("" for none). `dynamic`: it reaches names that cannot be read off.
    """

    digest: str = ""
    refs: list[str] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)
    imports: dict[str, list[str]] = field(default_factory=dict)
    executes: list[str] = field(default_factory=list)
    plugins: list[list[str]] = field(default_factory=list)
    by_name: list[str] = field(default_factory=list)
    dynamic: bool = False

    def to_json(self) -> SymbolJson:
        """Write the symbol as plain JSON."""
        return (
            self.digest,
            self.refs,
            self.strings,
            self.imports,
            self.executes,
            self.plugins,
            self.by_name,
            self.dynamic,
        )


@dataclass(slots=True)
class Table:
    """The symbols of a file; `always` names those that importing the module runs or may run."""

    symbols: dict[str, Symbol]
    always: list[str]
    bound: list[str]  # names that TOP binds

    def to_json(self) -> TableJson:
        """Write the table as plain JSON."""
        rows = {name: symbol.to_json() for name, symbol in self.symbols.items()}
        return rows, self.always, self.bound

    @classmethod
    def from_json(cls, doc: TableJson) -> Table:
        """Read what `to_json` wrote."""
        rows, always, bound = doc
        return cls({name: Symbol(*row) for name, row in rows.items()}, always, bound)


def parse(text: str | bytes, module: str, *, package: bool) -> Table:
    """Read a source file; `package` says that it is an `__init__.py`. Raises SyntaxError."""
    place = module if package else module.rpartition(".")[0]
    table = Table({TOP: Symbol()}, [], [])
    top: list[ast.stmt] = []
    bound: dict[str, list[ast.stmt]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            table.symbols[SCRIPT] = _symbol(list(node.body), place)
            top += node.orelse
            continue
        name = _name_of(node)
        if name is None:
            top.append(node)
            continue
        bound.setdefault(name, []).append(node)  # twice (an overload, a fallback): both count
        if name == "__getattr__" or _runs_at_import(node):
            table.always.append(name)
    for name, nodes in bound.items():
        table.symbols[name] = _symbol(nodes, place)
    table.symbols[TOP] = _symbol(top, place)
    table.bound = sorted(_bound(top))
    return table


def canonical(node: object) -> str:
    """Write a syntax tree so that two sources of one behaviour read alike."""
    if isinstance(node, ast.AST):
        parts = []
        for name in node._fields:
            value = getattr(node, name, None)
            if name in SILENT or value is None or value == []:
                continue
            if name in ("body", "orelse", "finalbody") and isinstance(value, list):
                value = [one for one in value if not _is_text(one)]
            parts.append(f"{name}={canonical(value)}")
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    return repr(node)


def _is_text(node: object) -> bool:
    """Tell a docstring, or any other string that stands alone."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _name_of(node: ast.stmt) -> str | None:
    """Return the one name that a statement binds and does no more; None for any other statement."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


def _runs_at_import(node: ast.stmt) -> bool:
    """Tell whether binding the symbol may do something besides: a call, a decorator of effect."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return any(isinstance(one, ast.Call) for one in ast.walk(node))
    decorators = getattr(node, "decorator_list", [])
    roots = [ast.unparse(decorator).partition("(")[0].partition(".")[0] for decorator in decorators]
    return not INERT.issuperset(roots) or any(
        keyword.arg == "metaclass" for keyword in getattr(node, "keywords", [])
    )


def _symbol(nodes: list[ast.stmt], package: str) -> Symbol:
    found = Symbol(dynamic=False)
    kept = [node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom)]
    text = "\n".join(canonical(node) for node in kept if not _is_text(node))
    found.digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    for node in nodes:
        for one in _nodes(node):
            _note(found, one, package)
    for name in ("refs", "strings", "executes", "by_name"):
        setattr(found, name, sorted(set(getattr(found, name))))
    return found


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without docstrings and without what only a type checker reads."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for other in node.orelse:
            yield from _nodes(other)
        return
    if _is_text(node):
        return
    yield node
    if isinstance(node, ast.Attribute) and _dotted(node):
        return
    for child in ast.iter_child_nodes(node):
        yield from _nodes(child)


def _dotted(node: ast.AST) -> str:
    """Return "a.b.c" of a chain that starts at a name, else an empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _note(found: Symbol, node: ast.AST, package: str) -> None:
    match node:
        case ast.Name(id=name):
            found.refs.append(name)
            found.dynamic |= name in DYNAMIC
        case ast.Attribute(attr=attr):
            if dotted := _dotted(node):
                found.refs.append(dotted)
            found.dynamic |= attr == "__subclasses__"
        case ast.Constant(value=str() as text) if text and len(text) <= STRING_MAX:
            if not any(letter.isspace() for letter in text):
                found.strings.append(text)
        case ast.Import(names=names):
            for alias in names:
                bound = alias.asname or alias.name.partition(".")[0]
                found.imports[bound] = [alias.name if alias.asname else bound, ""]
                found.executes.append(alias.name)
        case ast.ImportFrom():
            _note_import(found, node, package)
        case ast.Call():
            _note_call(found, node)


def _note_import(found: Symbol, node: ast.ImportFrom, package: str) -> None:
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    found.executes.append(base)
    for alias in node.names:
        found.imports[alias.asname or alias.name] = [base, alias.name]


def _note_call(found: Symbol, node: ast.Call) -> None:
    called = _dotted(node.func)
    root, _, verb = called.rpartition(".")
    if verb == "import_module" or called == "__import__":
        found.by_name.append(_start(node.args[0]) if node.args else "")
    elif root == "plugins":
        words = [_start(arg) if isinstance(arg, ast.Constant) else "" for arg in node.args[:2]]
        found.plugins.append([verb, *words, *[""] * (2 - len(words))])


def _start(node: ast.expr) -> str:
    """Return a constant text, or how an f-string starts (then with a "*" at its end)."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=[ast.Constant(value=str() as text), *_]):
            return f"{text}*"
    return ""


def _bound(nodes: list[ast.stmt]) -> set[str]:
    """Name what the statements of a module bind, imports apart."""
    found = set()
    for node in nodes:
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                found.add(one.id)
            elif isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(one.name)
    return found
