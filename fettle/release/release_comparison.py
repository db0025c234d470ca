"""Comparison of two releases: the same test rows answered by both, sizes, latencies, flips.

Of what each release carries (carried_evidence.py): no model is run, no data is needed. Quality is
paired, row by row, on the rows that both test splits have. Latencies were taken in two runs, each
beside its own float model, so that they are shown with their intervals and never subtracted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fettle.errors import UserError
from fettle.facts.package_facts import ReleaseDocument
from fettle.facts.verdict_facts import VerdictFacts
from fettle.json_values import JsonObject
from fettle.manifest import digest_of, sha256_file
from fettle.measure import Measure
from fettle.params_schema import METRICS
from fettle.release import carried_evidence, release_gate, release_verification
from fettle.release.carried_evidence import SHIPPED, RecordedAnswers
from fettle.release.release_gate import PairedAnswers
from fettle.release.released_run import ReleasedRun


@dataclass(frozen=True, slots=True)
class ComparedRelease:
    """One side: its release.json, its artefacts, its answers to its test images."""

    digest: str
    stated: ReleaseDocument
    run: ReleasedRun
    answers: RecordedAnswers

    @property
    def size_bytes(self) -> int:
        """The bytes of its model."""
        return sum(file.bytes for file in self.run.exported.files)


@dataclass(frozen=True, slots=True)
class FlippedAnswer:
    """A test row that the two answer differently."""

    row: str
    label: str
    before: str
    after: str

    @property
    def kind(self) -> str:
        """What the flip did to it: lost, gained, or wrong in both."""
        if self.before == self.label:
            return "lost"
        return "gained" if self.after == self.label else "wrong"


@dataclass(frozen=True, slots=True)
class ReleaseComparison:
    """`measures` as the gate's: METRIC of `after`, float_METRIC of `before`, METRIC_drop."""

    before: ComparedRelease
    after: ComparedRelease
    rows: int
    unpaired: int
    measures: Mapping[str, Measure]
    flipped: tuple[FlippedAnswer, ...]


def read(release: Path, classes: tuple[str, ...] | None = None) -> ComparedRelease:
    """Read one side. Raises UserError when it carries no evidence."""
    if not (release / carried_evidence.FOLDER / "verdict.json").is_file():
        raise UserError(
            f"{release.name} carries no answers to compare",
            got=f"no {carried_evidence.FOLDER}/verdict.json in it",
            rule="a release of this version of fettle carries its answers to the test images",
            fix="make it again with `fettle run`",
        )
    stated = ReleaseDocument.read(release / "release.json")
    run = release_verification.read_run(release, stated)
    answers = carried_evidence.read_test(release, classes or run.verdict.facts.classes)
    digest = digest_of({**stated.files, "release.json": sha256_file(release / "release.json")})
    return ComparedRelease(digest, stated, run, answers)


def classes_of(release: Path) -> tuple[str, ...]:
    """Return the classes that a release tells apart."""
    return carried_evidence.read_manifest(release, "verdict", VerdictFacts).facts.classes


def compare(before: Path, after: Path) -> ReleaseComparison:
    """Compare two release folders on the test rows that both have.

    Raises UserError when they share none, or a side carries no evidence.
    """
    read(before), read(after)  # a side without evidence is named before anything else
    classes = tuple(dict.fromkeys((*classes_of(before), *classes_of(after))))
    one, two = read(before, classes), read(after, classes)
    at = {row: index for index, row in enumerate(two.answers.rows)}
    pairs = [
        (index, at[row])
        for index, row in enumerate(one.answers.rows)
        if row in at and one.answers.labels[index] == two.answers.labels[at[row]]
    ]
    if not pairs:
        raise UserError(
            f"{before.name} and {after.name} share no test row",
            got=f"{len(one.answers.rows):,} and {len(two.answers.rows):,} rows",
            rule="two releases are compared on the same images with the same labels",
            fix="compare releases whose test split has images in common",
        )
    first, second = (np.asarray(side) for side in zip(*pairs, strict=True))
    paired = PairedAnswers(
        one.answers.models[SHIPPED][first],
        two.answers.models[SHIPPED][second],
        one.answers.labels[first],
        classes,
    )
    rows = [one.answers.rows[index] for index in first]
    return ReleaseComparison(
        before=one,
        after=two,
        rows=len(pairs),
        unpaired=len(one.answers.rows) + len(two.answers.rows) - 2 * len(pairs),
        measures=release_gate.compare(paired),
        flipped=_flipped(paired, rows),
    )


def _flipped(paired: PairedAnswers, rows: Sequence[str]) -> tuple[FlippedAnswer, ...]:
    """List the flips: lost first, then gained, then wrong in both."""
    was, is_ = paired.before.argmax(axis=1), paired.after.argmax(axis=1)
    names = paired.classes
    found = [
        FlippedAnswer(
            rows[index], names[paired.labels[index]], names[was[index]], names[is_[index]]
        )
        for index in np.flatnonzero(was != is_).tolist()
    ]
    order = ("lost", "gained", "wrong")
    return tuple(sorted(found, key=lambda flip: (order.index(flip.kind), flip.row)))


def to_json(made: ReleaseComparison) -> JsonObject:
    """Return the comparison as plain JSON, "fettle.comparison/1"."""
    kept = {
        name: made.measures[key].to_dict()
        for metric in METRICS
        for name, key in (
            (f"{metric}.before", f"float_{metric}"),
            (f"{metric}.after", metric),
            (f"{metric}.drop", f"{metric}_drop"),
        )
    }
    doc = {
        "schema": "fettle.comparison/1",
        "before": _side(made.before),
        "after": _side(made.after),
        "rows": made.rows,
        "unpaired_rows": made.unpaired,
        "measures": kept | {"churn": made.measures["churn"].to_dict()},
        "flipped": [
            {
                "row": flip.row,
                "label": flip.label,
                "before": flip.before,
                "after": flip.after,
                "kind": flip.kind,
            }
            for flip in made.flipped
        ],
    }
    plain: JsonObject = json.loads(json.dumps(doc))
    return plain


def _side(side: ComparedRelease) -> dict[str, object]:
    targets = {
        name: {
            "size_bytes": sealed.facts.size_bytes,
            "verdict": sealed.facts.verdict,
            "latency_p50_ms": latency.to_dict() if latency else None,
        }
        for name, sealed in side.run.evaluated.items()
        for latency in [sealed.measures.get("latency_p50_ms")]
    }
    return {
        "release": side.digest,
        "name": side.stated.name,
        "target": side.stated.target,
        "passed": side.stated.passed,
        "data": side.stated.data.digest,
        "size_bytes": side.size_bytes,
        "targets": targets,
    }
