"""Schema of params.yaml: its number, the keys that were renamed, and the rewrite of an older file.

RENAMED is the one list: the reader names the new key from it (fettle/params.py), and `fettle
migrate` rewrites files by it. A file is edited where a key stands and nowhere else, so that
comments, order and line ends stay; what the edit gives is parsed again and must hold the same
values, else the file is left alone.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from fettle import params_text
from fettle.errors import ParamsError, ProjectError
from fettle.params_schema import SCHEMA, Params
from fettle.params_text import Where

ANY = "[]"  # each item of a list
# Where a key of an earlier schema stood, and its name now.
RENAMED: Mapping[Where, str] = {
    ("compress", "also"): "constraints",
    ("compress", "objective", "on"): "target",
    ("promote", "steps", ANY, "margin_times"): "margin_multiplier",
}
BREAKS = re.compile("\r\n|[\n\r]")  # what YAML 1.2 takes for the end of a line
COMMENT = re.compile(r"(?<=\S)( {2,})#")

Edit = tuple[int, int, str]  # offset, how many characters go, what comes


@dataclass(frozen=True, slots=True)
class Migration:
    """A file's new text and what changed in it, a line each; none when it is up to date."""

    path: Path
    text: str
    changes: tuple[str, ...]


def former_keys(doc: object) -> list[Where]:
    """List where keys of an earlier schema stand."""
    return [where for pattern in RENAMED for where in _matches(doc, pattern, ())]


def _matches(node: object, pattern: Where, where: Where) -> Iterator[Where]:
    head, rest = pattern[0], pattern[1:]
    if head == ANY:
        items = node.items() if isinstance(node, Mapping) else enumerate(_list(node))
        for index, child in items:
            if isinstance(index, int):
                yield from _matches(child, rest, (*where, index))
    elif isinstance(node, Mapping) and head in node:
        yield from _matches(node[head], rest, (*where, head)) if rest else [(*where, head)]


def _list(node: object) -> Sequence[object]:
    return node if isinstance(node, list) else []


def name_now(where: Where) -> Where:
    """Return where a former key stands now."""
    return (*where[:-1], RENAMED[tuple(ANY if isinstance(part, int) else part for part in where)])


def dotted(where: Where) -> str:
    """Write a place as `a.b[0].c`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _said(where: Where) -> str:
    return f"{dotted(where)} is now {dotted(name_now(where))}"


def command(path: Path | None) -> str:
    """Write the command that brings this file up to date."""
    own = path is None or path.resolve() == (Path.cwd() / "params.yaml").resolve()
    return "fettle migrate" if own else f"fettle migrate {shlex.quote(str(path))}"


def outdated(doc: CommentedMap, path: Path | None) -> list[tuple[Where, str]]:
    """List (where, text) for the schema number and every former key of a composed document.

    Raises ParamsError for a file of a newer schema, whose other keys are not ours to judge.
    """
    number, name = doc.get("schema", 1), path.name if path else "params.yaml"
    if isinstance(number, int) and number > SCHEMA:
        raise _newer(name, number)
    fix = f"run `{command(path)}`"
    found: list[tuple[Where, str]] = []
    if number == 1 and not isinstance(number, bool | float):
        text = f"schema: this file is of schema 1, fettle reads schema {SCHEMA} now: {fix}"
        found.append((("schema",), text))
    elif not _is_current(number):
        text = f"schema: the number must be {SCHEMA} (value {number!r}); write it, then {fix}"
        found.append((("schema",), text))
    return found + [(where, f"{_said(where)}: {fix}") for where in former_keys(doc)]


def _is_current(number: object) -> bool:
    return number == SCHEMA and isinstance(number, int) and not isinstance(number, bool)


def _newer(name: str, number: int) -> ParamsError:
    return ParamsError(
        f"{name} is of a newer schema",
        got=f"schema: {number}",
        rule=f"this fettle reads schema {SCHEMA}, and `fettle migrate` brings up older files only",
        fix="upgrade fettle, or take the file that went with this version",
    )


def refuse_former_set(override: str, key: str, value: object) -> None:
    """Raise ParamsError when a --set names a former key, in its path or in its value."""
    node = value
    for part in reversed(key.split(".")):
        node = {int(part) if part.isascii() and part.isdigit() else part: node}
    for where in former_keys(node):
        raise ParamsError(
            f"--set '{override}': {_said(where)}", fix=f"name {dotted(name_now(where))}"
        )


def former_graph_keys(text: str, name: str) -> list[tuple[int, str, str]]:
    """List (line, former key, its name now) of the params that a dvc.yaml's stages name."""
    if not any(dotted(where) in text for where in RENAMED):
        return []
    doc = params_text.parse(text, name, fix=f"mend that line of {name}")
    return [(line + 1, old, new) for line, _, old, new in _graph_places(doc)]


def refuse_former_graph(tree: Path) -> None:
    """Raise ProjectError when a project's dvc.yaml names a former key: DVC would not find it."""
    path = tree / "dvc.yaml"
    if not path.is_file():
        return
    found = former_graph_keys(path.read_text(encoding="utf-8", errors="replace"), path.name)
    if found:
        line, old, new = found[0]
        raise ProjectError(
            f"{path} was written by an earlier fettle",
            got=f"{old} among a stage's params, in line {line}",
            rule=f"{old} is now {new}",
            fix=f"run `fettle migrate` in {tree}, which rewrites params.yaml and dvc.yaml",
        )


def _graph_places(doc: object) -> Iterator[tuple[int, int, str, str]]:
    """Yield (line and column from 0, former key, its name now) for each item that names one."""
    stages = doc.get("stages") if isinstance(doc, Mapping) else None
    for stage in stages.values() if isinstance(stages, Mapping) else []:
        body = stage.get("do", stage) if isinstance(stage, Mapping) else {}
        listed = body.get("params") if isinstance(body, Mapping) else None
        below = [
            names
            for entry in _list(listed)
            if isinstance(entry, Mapping)
            for file, names in entry.items()
            if Path(str(file)).name == "params.yaml"
        ]
        for names in (listed, *below):
            for index, item in enumerate(_list(names)):
                for where in RENAMED:
                    old, new = dotted(where), dotted(name_now(where))
                    if isinstance(item, str) and (item == old or item.startswith(f"{old}.")):
                        yield (*names.lc.item(index), old, new)


def plan(path: Path) -> Migration:
    """Work out the migration of a params file or a dvc.yaml; nothing is written.

    Raises ParamsError when it is missing, no valid YAML, no such file, of a newer schema, or
    cannot be edited safely.
    """
    name, text = str(path), params_text.read(path)
    doc = params_text.parse(text, name, fix="mend that line; the file is as it was")
    if isinstance(doc, CommentedMap) and "stages" in doc:
        edits, changes = _graph_edits(doc, text)
        return Migration(path, _replaced(text, edits), tuple(changes))
    sections = {field.alias or key for key, field in Params.model_fields.items()} - {"schema"}
    if not isinstance(doc, CommentedMap) or not sections.intersection(doc):
        raise ParamsError(
            f"{name} is no params file",
            rule="one has sections such as ingest, finetune and compress",
            fix="name a params file, or a dvc.yaml",
        )
    edits, changes = _edits(doc, text, name)
    wanted = _upgraded(params_text.parse(text, name, fix="mend it", plain=True))
    for new in (_aligned(text, edits), _replaced(text, edits)):
        if repr(params_text.parse(new, name, fix=_BY_HAND, plain=True)) == repr(wanted):
            return Migration(path, new, tuple(changes))
    raise _unsafe(name, changes)


_BY_HAND = "rename these keys by hand; the file is as it was"


def _unsafe(name: str, changes: Sequence[str]) -> ParamsError:
    return ParamsError(
        f"{name} cannot be rewritten safely",
        got="; ".join(changes),
        rule="a key that is written with an escape, a tag or an anchor cannot be told from text",
        fix=_BY_HAND,
    )


def _edits(doc: CommentedMap, text: str, name: str) -> tuple[list[Edit], list[str]]:
    edits, changes = _schema_edit(doc, text, name)
    starts = _line_starts(text)
    for where in sorted(former_keys(doc), key=lambda where: params_text.line(doc, where)):
        parent: Any = doc  # Any: a YAML tree
        for part in where[:-1]:
            parent = parent[part]
        old, new = str(where[-1]), str(name_now(where)[-1])
        if new in parent:
            raise ParamsError(
                f"{name} holds both {dotted(where)} and {dotted(name_now(where))}",
                rule="they are one setting, by its former name and by its name now",
                fix="take one out; the file is as it was",
            )
        place = (getattr(parent.lc, "data", None) or {}).get(old)
        if place is None:
            continue  # merged in (`<<`): it is renamed where it stands
        line, column = place[0], place[1]
        found = re.compile(rf"([\"']?){old}\1").match(text, starts[line] + column)
        if found is None:
            raise _unsafe(name, [f"{_said(where)} (line {line + 1})"])
        edit = (found.start(), len(found[0]), f"{found[1]}{new}{found[1]}")
        if edit not in edits:  # an alias leads here a second time
            edits.append(edit)
            changes.append(f"line {line + 1}: {_said(where)}")
    return edits, changes


def _schema_edit(doc: CommentedMap, text: str, name: str) -> tuple[list[Edit], list[str]]:
    starts = _line_starts(text)
    if "schema" in doc:
        number = doc["schema"]
        if _is_current(number):
            return [], []
        if isinstance(number, int) and number > SCHEMA:
            raise _newer(name, number)
        line, column = doc.lc.value("schema")
        at = starts[line] + column
        if number != 1 or text[at : at + 1] != "1":
            raise ParamsError(
                f"{name}: schema is no number of a schema",
                got=f"{number!r} in line {line + 1}",
                rule=f"it is 1 or {SCHEMA}",
                fix="write the number; the file is as it was",
            )
        return [(at, 1, str(SCHEMA))], [f"line {line + 1}: schema is {SCHEMA}"]
    line, column = min(tuple(place[:2]) for place in doc.lc.data.values())
    at = starts[line] + column
    changes = [f"schema: {SCHEMA} is added"]
    if doc.fa.flow_style():
        return [(at, 0, f"schema: {SCHEMA}, ")], changes
    indent = text[starts[line] : at]
    if indent.strip():
        raise _unsafe(name, changes)
    ends = BREAKS.search(text)
    end = ends[0] if ends else "\n"
    return [(starts[line], 0, f"{indent}schema: {SCHEMA}{end}")], changes


def _graph_edits(doc: CommentedMap, text: str) -> tuple[list[Edit], list[str]]:
    starts, edits, changes = _line_starts(text), [], []
    for line, column, old, new in _graph_places(doc):
        at = text.find(old, starts[line] + column)
        if 0 <= at <= starts[line] + column + 1:  # a quote may stand before it
            edits.append((at, len(old), new))
            changes.append(f"line {line + 1}: {old} is now {new}")
    return edits, changes


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in BREAKS.finditer(text))]


def _replaced(text: str, edits: Sequence[Edit]) -> str:
    for at, count, new in sorted(edits, reverse=True):
        text = text[:at] + new + text[at + count :]
    return text


def _aligned(text: str, edits: Sequence[Edit]) -> str:
    """Make the edits, and keep a comment behind a changed key in its column where there is room."""
    padded = list(edits)
    starts = _line_starts(text)
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        here = [edit for edit in edits if start <= edit[0] < end and edit[1]]
        grown = sum(len(new) - count for _, count, new in here)
        after = max((at + count for at, count, _ in here), default=end)
        comment = COMMENT.search(text, after, end)
        if comment and grown > 0 and len(comment[1]) - grown >= 2:
            padded.append((comment.start(1), grown, ""))
    return _replaced(text, padded)


def _upgraded(doc: Any) -> Any:  # Any: plain values of a YAML tree
    """Rename the keys of plain values in place, and give them the schema's number."""
    for where in former_keys(doc):
        parent = doc
        for part in where[:-1]:
            parent = parent[part]
        items = [(name_now(where)[-1] if key == where[-1] else key, v) for key, v in parent.items()]
        parent.clear()
        parent.update(items)
    if "schema" not in doc:
        items = list(doc.items())
        doc.clear()
        doc.update([("schema", SCHEMA), *items])
    doc["schema"] = SCHEMA
    return doc


def write(migration: Migration) -> None:
    """Put the new text in the file's place in one step; its mode, and a link to it, stay.

    Raises ParamsError when the file cannot be replaced; it is as it was then.
    """
    target = migration.path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        mark = codecs.BOM_UTF8 if target.read_bytes().startswith(codecs.BOM_UTF8) else b""
        temporary.write_bytes(mark + migration.text.encode())
        shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as err:
        raise ParamsError(
            f"{migration.path} cannot be rewritten",
            got=err.strerror,
            rule="the new text is written beside it and takes its place; the file is as it was",
            fix="make its folder writable, or free some space",
        ) from err
    finally:
        temporary.unlink(missing_ok=True)
