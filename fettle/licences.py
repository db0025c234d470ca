"""Licences: what a package, a folder or a person states, as an SPDX expression where it is one.

Nothing is guessed: a licence is stated by a plug-in, by the metadata of a wheel, or by a file named
LICENSE, LICENCE or COPYING beside the data or the weights; else nobody states one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType

NAME_MAX = 60  # characters; a longer field of a wheel holds the licence's text, not its name
TEXT_MAX = 4096  # bytes of a licence file that are looked at: its name stands at its head
FILE = re.compile(r"(licen[cs]e|copying)(\.(txt|md|rst))?", re.IGNORECASE)

# What licences are called in classifiers, old metadata and by people: SPDX ids by plain names.
_CALLED = {
    "apache": "Apache-2.0",  # the other versions are of the last century
    "apache software": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd 3 clause": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "cc0": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "cc0 1.0 universal": "CC0-1.0",
    "cc by 4.0": "CC-BY-4.0",
    "cc by sa 4.0": "CC-BY-SA-4.0",
    "cc by nc 4.0": "CC-BY-NC-4.0",
    "mozilla public 2.0 mpl 2.0": "MPL-2.0",
    "isc isc l": "ISC",
}
# The title that a licence's own text begins with, in one line; the longer title first.
_TITLES = (
    ("attribution-noncommercial-sharealike 4.0 international", "CC-BY-NC-SA-4.0"),
    ("attribution-noncommercial 4.0 international", "CC-BY-NC-4.0"),
    ("attribution-sharealike 4.0 international", "CC-BY-SA-4.0"),
    ("attribution 4.0 international", "CC-BY-4.0"),
    ("cc0 1.0 universal", "CC0-1.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("mit license", "MIT"),
    ("bsd 3-clause license", "BSD-3-Clause"),
    ("bsd 2-clause license", "BSD-2-Clause"),
    ("mozilla public license version 2.0", "MPL-2.0"),
    ("gnu affero general public license version 3", "AGPL-3.0-only"),
    ("gnu general public license version 3", "GPL-3.0-only"),
    ("gnu general public license version 2", "GPL-2.0-only"),
)
_TAG = re.compile(r"SPDX-License-Identifier:\s*([^\n*]+)")


def identifier(name: str) -> str:
    """Return the SPDX id that a name means, or the name as it is."""
    plain = re.sub(r"[\s_()/-]+", " ", name.lower().replace("version", " "))
    plain = re.sub(r"\b(the|licen[cs]e|licen[cs]ed)\b", " ", plain)
    return _CALLED.get(" ".join(plain.replace(",", " ").split()), name.strip())


def of_package(*names: str) -> str | None:
    """Return the licence in the metadata of the first of these packages that states one."""
    for name in names:
        try:
            found = of_metadata(metadata.distribution(name).metadata)
        except metadata.PackageNotFoundError:
            continue
        if found is not None:
            return identifier(found)
    return None


def of_metadata(fields: metadata.PackageMetadata) -> str | None:
    """Return the licence a package states: an SPDX expression, its classifiers, or a short name."""
    classifiers = fields.get_all("Classifier") or []
    classes = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
    # an old field, in which some packages put the whole text, and some that they know of none
    named = [n for n in fields.get_all("License") or [] if len(n) <= NAME_MAX and n != "UNKNOWN"]
    expressions = fields.get_all("License-Expression") or []
    return next((found for found in (*expressions, " / ".join(classes), *named) if found), None)


def file_beside(place: Path) -> Path | None:
    """Find the licence file in a folder, or beside a file."""
    folder = place if place.is_dir() else place.parent
    try:
        found = sorted(p for p in folder.iterdir() if FILE.fullmatch(p.name) and p.is_file())
    except OSError:
        return None
    return found[0] if found else None


def beside(place: Path) -> str | None:
    """Return what the licence file in a folder, or beside a file, states; None without one.

    A text that is not known is stated by its file's name: somebody has to read it.
    """
    path = file_beside(place)
    if path is None:
        return None
    try:
        with path.open("rb") as handle:
            text = handle.read(TEXT_MAX).decode("utf-8", errors="replace").lstrip("\ufeff")
    except OSError:
        return f"see {path.name}"
    if tag := _TAG.search(text):
        return identifier(tag[1])
    words = " ".join(re.sub(r"[,;:#*=]+", " ", text.lower()).split())
    for title, name in _TITLES:
        if title in words[:400]:
            return name
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and len(lines[0]) <= NAME_MAX:
        return identifier(lines[0])
    return f"see {path.name}"


def stated(plugin: ModuleType, options: object, place: Path | None) -> str | None:
    """Return what a source or a family states of its data or its network, if it states anything.

    `place` is the user's data for a source, the project for a family.
    """
    found: str | None = plugin.licence(options, place) if hasattr(plugin, "licence") else None
    return found


def is_allowed(licence: str, allow: Iterable[str]) -> bool:
    """Tell whether an expression is in a list: of A OR B one is enough, of A AND B both must be.

    AND binds closer than OR, as in SPDX.
    """
    allowed = {identifier(name).lower() for name in allow}
    if identifier(licence).lower() in allowed:
        return True
    whole = re.fullmatch(r"\(([^()]*)\)", licence.strip())
    flat = whole[1] if whole else licence
    if "(" in flat:  # nested: a person has to list it as it stands
        return False
    for operator, fold in (("OR", any), ("AND", all)):
        parts = re.split(rf"\s+{operator}\s+", flat)
        if len(parts) > 1:
            return fold(is_allowed(part, allow) for part in parts)
    return False
