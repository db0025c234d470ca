"""Release verification: every figure that a release states, derived again from what it carries.

    quality, intervals   from the answers to each test and validation image (carried_evidence.py)
    gate                 from these figures and the bounds: verdict, sentences, budget
    choice               from the validation answers: how likely each target holds on test
    sizes, ratios        from the model's files, the manifests' lists of files, the float's counts
    documents            gate.json, validation.json, card.md and the bill's figures, written again
    chain                each manifest names the digests of those above it

Latency, energy, memory, parity and accuracy emulated for another processor cannot be derived
without the machine: they are held by the digests of the manifests alone. No torch, no network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fettle import manifest
from fettle.errors import FettleError, TamperedError, UserError
from fettle.evaluation import accuracy_statistics, passing_probability
from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.package_facts import ReleaseDocument
from fettle.facts.select_facts import CHOICE, ChoiceDocument
from fettle.facts.validate_facts import ValidateFacts
from fettle.facts.verdict_facts import ModelCounts, VerdictFacts
from fettle.manifest import Manifest
from fettle.measure import Measure
from fettle.params_schema import Budget
from fettle.release import (
    carried_evidence,
    ledger_verification,
    release_gate,
    released_run,
    report_verification,
    sbom,
)
from fettle.release.carried_evidence import BASELINE, FLOAT, FOLDER, SHIPPED
from fettle.release.release_gate import PairedAnswers
from fettle.release.released_run import ReleasedRun
from fettle.report import model_card

# numpy of another version, or another processor, may add up in another order
TOLERANCE = 1e-9
SHOWN = 4


@dataclass
class DerivedFigures:
    """What was derived again: how many figures of each part, and what does not fit."""

    counted: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def same(self, part: str, name: str, stated: object, derived: object) -> None:
        """Compare one stated value with the derived one."""
        self.counted[part] = self.counted.get(part, 0) + 1
        if not _equal(stated, derived):
            self.wrong.append(f"{name} is stated as {_text(stated)}, derived as {_text(derived)}")

    def measures(
        self, part: str, place: str, stated: Mapping[str, Measure], derived: Mapping[str, Measure]
    ) -> None:
        """Compare each derived measure, its interval and n, with the stated one."""
        for name, measure in derived.items():
            found = stated.get(name)
            given: Mapping[str, object] = dict(found.to_dict()) if found else {}
            for key, value in measure.to_dict().items():
                self.same(part, f"{place} {name}.{key}", given.get(key), value)


def _equal(stated: object, derived: object) -> bool:
    if isinstance(stated, bool) or isinstance(derived, bool):
        return stated is derived
    if isinstance(stated, int | float) and isinstance(derived, int | float):
        return math.isclose(stated, derived, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return stated == derived


def _text(value: object) -> str:
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def derive(release: Path, report: Path | None = None) -> DerivedFigures:
    """Derive every figure of a release folder again, and of the report.json that tells of it;
    `refuse` raises for what does not fit.

    Raises UserError when the release carries no evidence, TamperedError when what it carries
    cannot be read.
    """
    if not (release / FOLDER / "verdict.json").is_file():
        raise UserError(
            f"{release.name} carries no evidence to derive its figures from",
            got=f"no {FOLDER}/verdict.json in it",
            rule="a release of this version of fettle carries its artefacts' manifests and answers",
            fix="make it again with `fettle run`; its signature says who made it, and no more",
        )
    figures = DerivedFigures()
    try:
        stated = ReleaseDocument.read(release / "release.json")
        run = read_run(release, stated)
        _check_chain(figures, release)
        _check_statement(figures, release, stated, run)
        _check_test(figures, release, run)
        _check_targets(figures, release, run)
        _check_documents(figures, release, stated, run)
        if report is not None:
            report_verification.check(figures.same, json.loads(report.read_text()), run)
    except TamperedError:
        raise
    except (FettleError, OSError, ValueError, KeyError, TypeError, ArithmeticError) as err:
        text = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise TamperedError(
            f"what {release.name} carries does not fit together",
            got=text if isinstance(err, FettleError) else f"{type(err).__name__}: {text}",
            rule="its figures are derived again from what it carries",
            fix="do not use it; take it from where it was published, or run `fettle run`",
        ) from err
    return figures


def refuse(figures: DerivedFigures, release: Path) -> None:
    """Raise TamperedError when a figure does not follow from what the release carries."""
    if figures.wrong:
        more = len(figures.wrong) - SHOWN
        shown = [*figures.wrong[:SHOWN], *([f"{more} more"] if more > 0 else [])]
        raise TamperedError(
            f"{release.name} states what does not follow from what it carries",
            got="; ".join(shown),
            rule="every figure is derived again from the answers, files and manifests in it",
            fix="do not use it; take it from where it was published, or run `fettle run`",
        )


def read_run(release: Path, stated: ReleaseDocument) -> ReleasedRun:
    """Read the artefacts' manifests that a release carries."""
    choice = ChoiceDocument.read(release / FOLDER / CHOICE)
    read = carried_evidence.read_manifest
    return ReleasedRun(
        ingest=read(release, "ingest", IngestFacts),
        validate=read(release, "validate", ValidateFacts),
        finetune=read(release, "finetune", FinetuneFacts),
        evaluated={
            row.target: read(release, f"evaluate@{row.target}", EvaluateFacts)
            for row in choice.candidates
        },
        choice=choice,
        verdict=read(release, "verdict", VerdictFacts),
        exported=read(release, f"export@{stated.target}", ExportFacts),
    )


def _check_chain(figures: DerivedFigures, release: Path) -> None:
    """Hold each manifest to the digests by which those below it name it."""
    place = release / FOLDER
    carried = {
        path.stem: manifest.sha256_file(path)
        for path in sorted(place.glob("*.json"))
        if path.name != CHOICE
    }
    for address in carried:
        doc = json.loads((place / f"{address}.json").read_text())
        figures.same("digests", f"{FOLDER}/{address}.json stage", doc["stage"], address)
        target = address.partition("@")[2]
        for above, digest in doc["inputs"].items():
            named = f"export@{target}" if above == "export" else above
            if named in carried:
                what = f"the digest of {named} in {FOLDER}/{address}.json"
                figures.same("digests", what, digest, carried[named])


def _check_statement(
    figures: DerivedFigures, release: Path, stated: ReleaseDocument, run: ReleasedRun
) -> None:
    """Hold release.json, the labels and the model's files to the manifests."""
    exported, verdict = run.exported.facts, run.verdict.facts
    pairs = {
        "target": (stated.target, run.choice.target),
        "gate's target": (verdict.target, run.choice.target),
        "passed": (stated.passed, verdict.passed),
        "runtime": (stated.runtime.name, exported.runtime),
        "runtime.precision": (stated.runtime.precision, exported.precision),
        "runtime.entry": (stated.runtime.entry, f"model/{exported.entry}"),
        "runtime.threads": (
            stated.runtime.threads,
            run.evaluated[stated.target].facts.threads or 1,
        ),
        "data.digest": (stated.data.digest, run.ingest.facts.digest),
        "data.source": (stated.data.source, run.ingest.facts.source),
        "data.ingest": (stated.data.ingest, run.ingest.digest),
        "data.validate": (stated.data.validate_, run.validate.digest),
        "labels": (json.loads((release / "labels.json").read_text()), list(verdict.classes)),
    }
    for name, (given, derived) in pairs.items():
        figures.same("digests", name, given, derived)
    there = {f.path: (f.sha256, f.bytes) for f in manifest.list_files(release / "model")}
    made = {f.path: (f.sha256, f.bytes) for f in run.exported.files}
    figures.same("sizes", "model/", there, made)
    chosen = carried_evidence.file_digest(release, "select", CHOICE)
    found = manifest.sha256_file(release / FOLDER / CHOICE)
    figures.same("digests", f"{FOLDER}/{CHOICE}", found, chosen)


def _check_test(figures: DerivedFigures, release: Path, run: ReleasedRun) -> None:
    """Derive the gate: its figures, their intervals, its verdict and its sentences."""
    facts, stated = run.verdict.facts, run.verdict.measures
    if facts.bounds is None or facts.float_model is None:
        raise ValueError("evidence/verdict.json does not say what the gate asked")
    kept = carried_evidence.read_test(release, facts.classes)
    answers = PairedAnswers(
        kept.models[FLOAT], kept.models[SHIPPED], kept.labels, list(facts.classes)
    )
    exported = run.exported
    counts = ModelCounts(
        size_bytes=sum(file.bytes for file in exported.files),
        parameters=exported.facts.parameters or 0,
        macs=exported.facts.macs or 0,
    )
    float_bytes = next(f.bytes for f in run.finetune.files if f.path == "model.onnx")
    figures.same("sizes", "float_model.size_bytes", facts.float_model.size_bytes, float_bytes)
    figures.same("quality", "n", facts.n, len(kept.labels))
    figures.same("quality", "rows of the test split", len(set(kept.rows)), len(kept.rows))
    ratios = release_gate.size_ratios(facts.float_model, counts)
    ratios["latency_ratio"] = run.evaluated[run.choice.target].measures["speedup"]
    quality = release_gate.compare(answers)
    figures.measures("quality", "test", stated, quality)
    figures.measures("sizes", "test", stated, ratios)
    judged = release_gate.judge(
        answers,
        quality,
        facts.bounds,
        over=run.choice.row().over,
        licences=facts.licences,
        ledger=facts.ledger,
    )
    ledger_verification.check(figures.same, release, facts)
    budget, derived = facts.budget, judged.budget
    figures.same("gate", "the budget asked", facts.bounds.budget, run.choice.budget)
    figures.same("gate", "passed", facts.passed, judged.passed)
    figures.same("gate", "reasons", facts.reasons, judged.reasons)
    figures.same("gate", "failed", facts.failed, judged.failed)
    figures.same("gate", "budget.status", budget.status, derived.status)
    figures.same("gate", "budget.bound", budget.bound, derived.bound)
    figures.same("gate", "budget.n_needed", budget.n_needed, derived.n_needed)


def _check_targets(figures: DerivedFigures, release: Path, run: ReleasedRun) -> None:
    """Derive what is stated of every target: its quality on validation, its size, its chance."""
    measured = tuple(name for name, one in run.evaluated.items() if _is_scored(one))
    classes = len(run.verdict.facts.classes)
    kept = carried_evidence.read_validation(release, measured, classes) if measured else None
    asked = Budget.model_validate(run.choice.budget.model_dump())
    tested = sum(splits["test"] for splits in run.validate.facts.classes.values())
    for row in run.choice.candidates:
        sealed, target = run.evaluated[row.target], row.target
        exported = carried_evidence.read_manifest(release, f"export@{target}", ExportFacts)
        size = sum(file.bytes for file in exported.files) if exported.files else None
        for name, stated in (
            ("export", exported.facts.size_bytes),
            ("evaluate", sealed.facts.size_bytes),
            ("choice", row.size_bytes),
        ):
            figures.same("sizes", f"{target} size_bytes in {name}", stated, size)
        if given := sealed.measures.get("size_bytes"):
            figures.same("sizes", f"{target} size_bytes measured", given.value, size)
        for name, figure in (
            ("accuracy", row.accuracy),
            ("speedup", row.speedup),
            (f"{asked.metric}_drop", row.drop),
            (run.choice.objective.minimise, row.value),
        ):
            figures.same("choice", f"{target} {name}", figure, sealed.measures.get(name))
        if target not in measured or kept is None:
            continue
        before, after, labels = kept.models[BASELINE], kept.models[target], kept.labels
        figures.measures("quality", target, sealed.measures, _validation(before, after, labels))
        forecast = passing_probability.forecast_passing(asked, before, after, labels, tested=tested)
        figures.same("choice", f"{target} chance", row.chance, forecast.chance)
        figures.same("choice", f"{target} inside_budget", row.inside_budget, forecast.inside)


def _is_scored(sealed: Manifest[EvaluateFacts]) -> bool:
    return "accuracy" in sealed.measures


def _validation(
    before: accuracy_statistics.Floats,
    after: accuracy_statistics.Floats,
    labels: accuracy_statistics.Labels,
) -> dict[str, Measure]:
    first = accuracy_statistics.summary(before, labels)
    return {
        **accuracy_statistics.summary(after, labels),
        **{f"baseline_{name}": value for name, value in first.items()},
        **{f"{name}_drop": accuracy_statistics.drop(name, before, after, labels) for name in first},
        "churn": accuracy_statistics.churn(before, after),
    }


def _check_documents(
    figures: DerivedFigures, release: Path, stated: ReleaseDocument, run: ReleasedRun
) -> None:
    """Write each document again, and compare it with the one that the release has."""
    for name, doc in (
        ("gate.json", released_run.gate_document(run)),
        ("validation.json", released_run.validation_document(run)),
    ):
        there = json.loads((release / name).read_text())
        again = json.loads(json.dumps(doc))
        for key in sorted({*there, *again}):
            figures.same("documents", f"{name} {key}", there.get(key), again.get(key))
    card = model_card.text(released_run.card(stated, run)).splitlines()
    found = (release / "card.md").read_text().splitlines()
    for number, (is_, must) in enumerate(_padded(found, card), start=1):
        figures.same("documents", f"card.md, line {number},", is_, must)
    bill = json.loads(sbom.text(*released_run.bill_of_materials(stated, run), [], []))
    carried = json.loads((release / "sbom.cdx.json").read_text())
    for ref in ("model", "data"):
        there, again = (_component(doc["components"], ref) for doc in (carried, bill))
        figures.same("documents", f"sbom.cdx.json {ref}", there, again)


def _padded(found: list[str], wanted: list[str]) -> Iterable[tuple[str | None, str | None]]:
    length = max(len(found), len(wanted))
    return zip(
        [*found, *[None] * (length - len(found))],
        [*wanted, *[None] * (length - len(wanted))],
        strict=True,
    )


def _component(components: list[dict[str, object]], ref: str) -> dict[str, object] | None:
    return next((one for one in components if one.get("bom-ref") == ref), None)
