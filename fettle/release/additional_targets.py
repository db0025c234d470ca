"""Additional targets: files of a release that are not served by it, one folder a target.

    targets/NAME/…            the target's own files, as its export left them
    targets/NAME/target.json  what they are, how far they were verified, and what runs next

Only what the answer gate let pass is here (fettle/evaluation/answer_gate.py). Their digests stand
in release.json with all others.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from fettle import manifest
from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.facts.export_facts import ExportFacts
from fettle.facts.package_facts import AdditionalTarget, TargetFile
from fettle.facts.select_facts import ChoiceDocument, ChoiceRow
from fettle.manifest import Manifest

FOLDER = "targets"
FILE = "target.json"


def passed(choice: ChoiceDocument) -> list[ChoiceRow]:
    """List the targets that ship beside the chosen one: never timed, their answers verified."""
    return [
        row
        for row in choice.candidates
        if row.verdict == "ship" and row.evidence in ("emulated", "estimated")
    ]


def copy(
    release: Path,
    choice: ChoiceDocument,
    exports: Mapping[str, Path],
    evaluated: Mapping[str, Manifest[EvaluateFacts]],
) -> dict[str, str]:
    """Copy each one's files into the release; return {target: its files' digest}."""
    digests = {}
    for row in passed(choice):
        exported = manifest.read(exports[row.target], ExportFacts, verify=False)
        place = release / FOLDER / row.target
        for file in exported.files:
            (place / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(exports[row.target] / file.path, place / file.path)
        stated = describe(row, exported, evaluated[row.target])
        stated.write(place / FILE)
        digests[row.target] = stated.digest
    return digests


def describe(
    row: ChoiceRow, exported: Manifest[ExportFacts], evaluated: Manifest[EvaluateFacts]
) -> AdditionalTarget:
    """Describe a target's files: what they are and how far they were verified."""
    made, judged = exported.facts, evaluated.facts
    files = {file.path: file.sha256 for file in exported.files}
    return AdditionalTarget(
        target=row.target,
        hardware=made.hardware,
        runtime=made.runtime,
        version=made.version,
        precision=made.precision,
        dialect=made.dialect,
        entry=str(made.entry),
        files=tuple(TargetFile(path=path, sha256=digest) for path, digest in sorted(files.items())),
        digest=manifest.digest_of(files),
        evidence=row.evidence,
        answered_by=judged.answered_by,
        reason=row.reason,
        parity=judged.parity,
        drop=row.drop,
        churn=evaluated.measures.get("churn"),
        accelerator_share=judged.accelerator_share,
        estimates=judged.estimates or (),
        next_command=judged.next_command,
    )
