"""Ledger verification: count again how often a release's test images have judged.

The images' digests are the verdict's word: their bytes are not carried.
"""

from __future__ import annotations

from pathlib import Path

from fettle import manifest
from fettle.facts.verdict_facts import VerdictFacts
from fettle.release import carried_evidence, verdict_ledger
from fettle.release.carried_evidence import FOLDER
from fettle.release.report_verification import Compares


def check(same: Compares, release: Path, facts: VerdictFacts) -> None:
    """Hold the stated count to the carried lines; a release of before the ledger has none."""
    if facts.ledger is None:
        return
    file = release / FOLDER / verdict_ledger.NAME
    sealed = carried_evidence.file_digest(release, "verdict", verdict_ledger.NAME)
    same("digests", f"{FOLDER}/{verdict_ledger.NAME}", manifest.sha256_file(file), sealed)
    rows = verdict_ledger.digest_rows(carried_evidence.read_image_digests(release) or ())
    again = verdict_ledger.count(verdict_ledger.read(file), rows)
    for name, given in dict(facts.ledger).items():
        same("gate", f"ledger.{name}", given, getattr(again, name))
