"""Read YAML text as people's editors and shells leave it; every fault of it becomes a ParamsError.

Apart from fettle/params.py, which knows the keys: here are bytes, syntax, and the values that YAML
can write and JSON, in which everything is stored, cannot.
"""

from __future__ import annotations

import codecs
import datetime
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from fettle.errors import ParamsError

QUOTE = (
    "put the whole assignment in single quotes, e.g. --set 'finetune.augment={shift_fraction: 0.1}'"
)
# UTF-32's little-endian mark begins with UTF-16's, so it is asked for first.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

ENDLESS = "it holds itself (a YAML anchor within its own value)"

Where = tuple[str | int, ...]


def read(path: Path) -> str:
    """Read a params file; raises ParamsError when it is missing, no file, or not in UTF-8."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as err:
        raise ParamsError(
            f"no params file at {path}", fix="name an existing file (see examples/)"
        ) from err
    except (OSError, ValueError) as err:
        raise ParamsError(
            f"the params file {path} cannot be read",
            got=getattr(err, "strerror", None) or str(err),
            fix="name a file that you may read (see examples/)",
        ) from err
    kind = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    if kind is None and b"\0" in data[:4]:
        kind = "UTF-16"  # without a mark: every other byte of plain text is zero
    if kind is not None:
        raise _not_utf8(path, kind)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise _not_utf8(path, f"the byte 0x{data[err.start]:02x} in line {line}") from err


def _not_utf8(path: Path, got: str) -> ParamsError:
    return ParamsError(
        f"{path.name} is not in UTF-8",
        got=got,
        rule="a params file is UTF-8 text",
        fix=f"save {path.name} with the encoding UTF-8, also where an umlaut stands in a comment",
    )


def parse(text: str, name: str, *, fix: str, plain: bool = False) -> object:
    """Parse YAML 1.2; `name` says whose text it is. `plain` gives values without lines.

    Raises ParamsError with the line.
    """
    yaml = YAML(typ="safe", pure=True) if plain else YAML(typ="rt")
    try:
        return yaml.load(text)
    except MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        where, got = (mark.line + 1 if mark else None), str(err.problem or err.context)
    except ReaderError as err:
        number = ord(err.character) if isinstance(err.character, str) else err.character
        where = text.count("\n", 0, err.position) + 1
        got = f"the control character 0x{number:02x}"
    except (YAMLError, ValueError, OverflowError, AttributeError) as err:  # a date of month 13, say
        where, got = None, str(err).splitlines()[0][:200] if str(err) else type(err).__name__
    except RecursionError:
        where, got = None, "brackets nested too deep"
    place = f", line {where}" if where is not None and not plain else ""
    raise ParamsError(f"{name}{place}: not valid YAML", got=got, fix=fix)


def line(doc: object, where: Where) -> int:
    """Find the line (from 1) of the deepest existing part of `where`; 0 when unknown."""
    found = 0
    for part in where:
        try:
            if isinstance(doc, CommentedMap) and part in doc:
                found = doc.lc.key(part)[0] + 1
            elif isinstance(doc, CommentedSeq) and isinstance(part, int) and part < len(doc):
                found = doc.lc.item(part)[0] + 1
            else:
                return found
        except (KeyError, AttributeError, TypeError):
            return found  # set by --set: no line of its own
        doc = doc[part]
    return found


def unfit(doc: object) -> list[tuple[Where, str]]:
    """List (where, what is wrong) for every value of a tree that JSON cannot hold."""
    return list(_unfit(doc, (), ()))


def is_endless(found: list[tuple[Where, str]]) -> bool:
    """Tell whether a tree holds itself, so that nothing can walk it to its end."""
    return any(text == ENDLESS for _, text in found)


def _unfit(node: object, where: Where, above: tuple[int, ...]) -> Iterator[tuple[Where, str]]:
    if id(node) in above:
        yield where, ENDLESS
    elif isinstance(node, Mapping) and not isinstance(node, str):
        for key, value in node.items():
            if not isinstance(key, str):
                yield (*where, _shown(key)), "a key that is no text; put it in quotes"
            elif fault := _of_text(key):
                yield where, f"a key holds {fault}"
            else:
                yield from _unfit(value, (*where, key), (*above, id(node)))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _unfit(value, (*where, index), (*above, id(node)))
    elif fault := _of_leaf(node):
        yield where, fault


def _of_leaf(value: object) -> str | None:
    match value:
        case None | bool():
            return None
        case str():
            fault = _of_text(value)
            return f"the text holds {fault}" if fault else None
        case int():
            fits = abs(value) < 2**63
            return None if fits else "the number is too large: below 2 to the power of 63"
        case float():
            if math.isfinite(value):
                return None
            return f"{_shown(value)} is no finite number (for a wide limit write a large one, 1e9)"
        case datetime.date() | datetime.time():
            return f"{value} is read as a date; put it in quotes if text is meant"
        case _:
            return f"a YAML tag ({type(value).__name__}) is no plain value"


def _of_text(text: str) -> str | None:
    for character in text:
        if (ord(character) < 32 and character not in "\t\n") or ord(character) == 127:
            return f"the control character 0x{ord(character):02x}"
        if 0xD800 <= ord(character) <= 0xDFFF:
            return "half a character (a lone surrogate)"
    return None


def _shown(value: object) -> str:
    if isinstance(value, float) and math.isnan(value):
        return ".nan"
    if isinstance(value, float) and math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
