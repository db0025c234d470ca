"""Released run: the artefacts that a release is made of, and the documents that tell of them.

The stage that packages writes these documents (stages/package.py); who verifies a release makes
them again of the manifests that it carries, and compares (fettle/release/release_verification.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fettle import manifest
from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.package_facts import InputSignature, OutputSignature, ReleaseDocument
from fettle.facts.select_facts import ChoiceDocument
from fettle.facts.typed_document import TypedDocument
from fettle.facts.validate_facts import ValidateFacts
from fettle.facts.verdict_facts import VerdictFacts
from fettle.manifest import Manifest
from fettle.params_schema import METRICS
from fettle.release import sbom
from fettle.report import model_card


@dataclass(frozen=True, slots=True)
class ReleasedRun:
    """The artefacts that a release is made of; `exported` is the chosen target's."""

    ingest: Manifest[IngestFacts]
    validate: Manifest[ValidateFacts]
    finetune: Manifest[FinetuneFacts]
    evaluated: Mapping[str, Manifest[EvaluateFacts]]
    choice: ChoiceDocument
    verdict: Manifest[VerdictFacts]
    exported: Manifest[ExportFacts]

    @property
    def model_files(self) -> dict[str, str]:
        """The chosen target's files, {path in the release: sha256}."""
        return {f"model/{file.path}": file.sha256 for file in self.exported.files}


def gate_document(run: ReleasedRun) -> dict[str, object]:
    """Return what gate.json holds."""
    return {**_object(run.verdict), "artifact": run.verdict.digest}


def validation_document(run: ReleasedRun) -> dict[str, object]:
    """Return what validation.json holds."""
    return {**_object(run.validate), "artifact": run.validate.digest}


def _object(sealed: Manifest[TypedDocument]) -> dict[str, object]:
    measures = {key: m.to_dict() for key, m in sealed.measures.items()}
    return {**sealed.facts.to_object(), "measures": measures}


def card(stated: ReleaseDocument, run: ReleasedRun) -> model_card.Card:
    """Return the facts of the model card; `stated` is release.json, its files not needed yet."""
    ingest, verdict = run.ingest.facts, run.verdict
    rows = [
        model_card.Row(
            target=one.target,
            verdict=one.verdict,
            reason=one.reason,
            size_bytes=one.size_bytes,
            measures=run.evaluated[one.target].measures,
        )
        for one in run.choice.candidates  # in the order of params.yaml
    ]
    _, channels, size_px, _ = stated.input.shape
    return model_card.Card(
        name=stated.name,
        target=run.choice.target,
        why=run.choice.why,
        family=run.finetune.facts.family,
        passed=stated.passed,
        reasons=verdict.facts.reasons,
        size_px=size_px or 0,
        channels=channels or 0,
        output=f"{stated.output.kind}, turned into probabilities of the classes",
        source=ingest.source,
        data_digest=ingest.digest,
        counts=ingest.classes,
        quarantined=run.validate.facts.quarantined,
        measures=verdict.measures,
        rows=rows,
        licences=verdict.facts.licences,
    )


def bill_of_materials(
    stated: ReleaseDocument, run: ReleasedRun
) -> tuple[sbom.ModelComponent, sbom.DatasetComponent]:
    """Return what the bill of materials (SBOM) says of the model and of the data."""
    ingest, verdict = run.ingest.facts, run.verdict
    named = [*METRICS, *(f"{name}_drop" for name in METRICS)]
    model = sbom.ModelComponent(
        name=stated.name,
        family=run.finetune.facts.family,
        target=stated.target,
        files=run.model_files,
        digest=manifest.digest_of(run.model_files),
        licence=verdict.facts.licences.get("model"),
        inputs=_typed(stated.input),
        outputs=f"{stated.output.kind} {_typed(stated.output)}",
        measures={name: verdict.measures[name] for name in named if name in verdict.measures},
    )
    data = sbom.DatasetComponent(
        source=ingest.source,
        digest=ingest.digest,
        rows=ingest.rows,
        licence=verdict.facts.licences.get("data"),
    )
    return model, data


def _typed(part: InputSignature | OutputSignature) -> str:
    sizes = ", ".join("N" if size is None else str(size) for size in part.shape)
    return f"{part.dtype} [{sizes}]"
