"""History of the files in inputs/: what DVC recorded as a digest can be compared key by key.

DVC keeps the md5 of a dep, not its content. Every version that is written is kept as well, by that
md5, so that `fettle why` names the function, the file or the version and not the JSON file alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from fettle import manifest

KEPT_MAX = 400  # versions, a few kB each
SHOWN_MAX = 12


class Digests(TypedDict, total=False):
    """Digests of what one stage reaches (fettle/staleness/code_digest.py)."""

    functions: dict[str, dict[str, str]]
    data: dict[str, str]
    packages: dict[str, str]


def keep(tree: Path, path: Path, doc: object) -> None:
    """Write `path` below `tree`/inputs if its content changed, and keep this version."""
    text = json.dumps(doc, indent=1, sort_keys=True) + "\n"
    kept = _folder(tree) / f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.json"
    if not kept.is_file():
        manifest.write_text(kept, text)
        _prune(kept.parent)
    if not path.is_file() or path.read_text() != text:
        manifest.write_text(path, text)


def explain(tree: Path, path: Path, md5: str) -> list[str]:
    """Say what differs between `path` now and its version `md5`; nothing when that is not kept."""
    try:
        before = json.loads((_folder(tree) / f"{md5}.json").read_text())
        now = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    lines = (
        differences(before, now) if "functions" in now else list(_leaves(before, now, path.name))
    )
    more = len(lines) - SHOWN_MAX
    return lines[:SHOWN_MAX] + ([f"and {more} more in {path.name}"] if more > 0 else [])


def differences(before: Digests, now: Digests) -> list[str]:
    """Say how two documents of fettle/staleness/code_digest.py differ, a line each."""
    return list(_code(before, now))


def _code(before: Digests, now: Digests) -> Iterator[str]:
    old, new = before.get("functions", {}), now["functions"]
    for file in sorted(old.keys() | new.keys()):
        if file not in new:
            yield f"{file} is no longer reached"
        elif file not in old:
            yield f"{file} is reached now"
        else:
            for name in sorted(old[file].keys() | new[file].keys()):
                was, is_ = old[file].get(name), new[file].get(name)
                if was != is_:
                    how = "is reached now" if was is None else "is no longer reached"
                    yield f"{file} {_called(name)} {how if None in (was, is_) else 'changed'}"
    for file, how in _differences(before.get("data", {}), now["data"]):
        yield f"{file} {how}"
    versions = (before.get("packages", {}), now["packages"])
    for name in sorted(versions[0].keys() | versions[1].keys()):
        was, is_ = versions[0].get(name, "not imported"), versions[1].get(name, "not imported")
        if was != is_:
            yield f"package {name}: {was} before, {is_} now"


def _called(name: str) -> str:
    if name == "<module>":
        return "module level"
    if name.isupper() or name.startswith("__"):
        return f"constant `{name}`"
    return f"class `{name}`" if name.lstrip("_")[:1].isupper() else f"function `{name}`"


def _differences(
    before: Mapping[str, object], now: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    for name in sorted(before.keys() | now.keys()):
        if how := _how(before.get(name), now.get(name)):
            yield name, how


def _how(before: object, now: object) -> str:
    if before == now:
        return ""
    return "is new" if before is None else "is gone" if now is None else "changed"


def _leaves(before: object, now: object, where: str) -> Iterator[str]:
    """Compare two JSON documents value by value."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            yield from _leaves(before.get(key), now.get(key), f"{where} {key}")
    elif before != now:
        yield f"{where}: {_short(before)} before, {_short(now)} now"


def _short(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _folder(tree: Path) -> Path:
    return tree / ".fettle" / "inputs"


def _prune(folder: Path) -> None:
    """Drop the oldest versions beyond KEPT_MAX."""
    with suppress(OSError):
        paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in paths[:-KEPT_MAX]:
            path.unlink()
