"""Read what tests/support/calls/sitecustomize.py wrote down: the functions each stage called."""

from __future__ import annotations

from pathlib import Path

FOLDER = str(Path(__file__).resolve().parent / "calls")
# What the process runs before and around a stage: the command line, the check of params.yaml and of
# the code's digests, and the runner's own reports; none of it makes an artefact.
AROUND = (
    "fettle/cli/",
    "fettle/import_isolation.py",
    "fettle/plugins.py",
    "fettle/staleness/",
)
OUTSIDE = {
    ("stages/__main__.py", "main"),
    ("stages/__main__.py", "_refuse_stale_code"),
    ("fettle/manifest.py", "digest_of"),  # that check's
    ("fettle/process_lifetime.py", "die_with_parent"),
}


def read(folder: Path) -> dict[str, set[tuple[str, str]]]:
    """Return {stage: {(file, top-level function or class)}}."""
    return {path.name: calls(path) for path in folder.iterdir() if path.name != "inputs"}


def calls(path: Path) -> set[tuple[str, str]]:
    found = set()
    for line in path.read_text().splitlines():
        file, _, function = line.partition("\t")
        for package in ("/fettle/", "/stages/"):
            head, at, rest = file.rpartition(package)
            if at and head.endswith("site-packages"):
                name = function.partition(".")[0]
                place = f"{package.strip('/')}/{rest}"
                if not name.startswith("<") and not place.startswith(AROUND):
                    found.add((place, name))
    return found - OUTSIDE
