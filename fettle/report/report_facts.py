"""Report facts of the last run, from its artefacts, its records and `.fettle/last.json`.

Starts no tool and loads no model. What is not there becomes a Gap with its reason, never a guess.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path

from fettle.facts.compress_facts import CompressFacts, LayerTable
from fettle.facts.evaluate_facts import ProfileDocument
from fettle.facts.finetune_facts import TrainingCurve
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.search_document import SearchDocument
from fettle.facts.select_facts import ChoiceDocument
from fettle.facts.typed_document import Options
from fettle.facts.validate_facts import ValidateFacts, ValidationDocument
from fettle.facts.verdict_facts import ConfusionDocument, VerdictFacts
from fettle.measure import Measure
from fettle.params_schema import METRICS
from fettle.report import artifact_reader as trees
from fettle.report import target_rows
from fettle.report.artifact_reader import ArtifactTree, not_run
from fettle.report.report_document import (
    DataSource,
    FailureFacts,
    Gap,
    GateVerdict,
    Git,
    IngestedData,
    RecordedMachine,
    ReleaseSection,
    RunEnvironment,
    SourceFingerprint,
    StageFacts,
    Validation,
)
from fettle.report.report_json import to_json
from fettle.report.report_values import (
    RECALL,
    Compression,
    Details,
    Facts,
    Metric,
    Quality,
    StepFacts,
)

__all__ = ["Facts", "collect", "to_json"]

STAGES = ("validate", "finetune", "compress", "verdict")  # whose parts the page shows
VERSIONS = ("torch", "torch-pruning", "onnx", "onnxruntime", "openvino", "numpy", "scikit-learn")


def collect(project: Path) -> Facts:
    """Read everything the report says about the last run of `project`.

    Raises ProjectError when no stage has finished yet, TamperedError on a changed artefact.
    """
    tree = trees.read(project)
    gaps: list[Gap] = []
    choice = tree.document("select", "choice.json", ChoiceDocument)
    verdict = _verdict(tree, choice)
    targets = target_rows.targets(tree, choice, gaps)
    baseline, plain = target_rows.yardsticks(tree, verdict.chosen)
    return Facts(
        project=project,
        name=_name(tree),
        finished=tree.last.finished if tree.last else None,
        verdict=verdict,
        stages=_stages(tree, gaps),
        failures=tuple(
            FailureFacts(stage, str(e.get("kind")), str(e.get("text")))
            for stage, e in tree.errors.items()
        ),
        validation=_validation(tree, gaps),
        quality=_quality(tree, gaps),
        compression=_compression(tree, gaps),
        baseline=baseline,
        plain=plain,
        targets=targets,
        release=_release(tree, gaps),
        environment=_environment(tree, gaps),
        data=_data(tree),
        licences=_licences(tree),
        details=_details(tree, choice),
        gaps=tuple(gaps),
        warnings=tuple(tree.outdated()),
    )


def _name(tree: ArtifactTree) -> str:
    """Name the run: the release's name, else the folder's."""
    return (tree.last.release.name if tree.last else "") or tree.project.resolve().name


def _verdict(tree: ArtifactTree, choice: ChoiceDocument | None) -> GateVerdict:
    facts = tree.facts("verdict", VerdictFacts)
    return GateVerdict(
        passed=facts.passed if facts else None,
        reasons=facts.reasons if facts else (),
        chosen=choice.target if choice else None,
        why=choice.why if choice else None,
    )


def _stages(tree: ArtifactTree, gaps: list[Gap]) -> tuple[StageFacts, ...]:
    """Take the flow's own list; without one, the records in the order the stages started."""
    if tree.last and tree.last.stages:
        return tuple(
            StageFacts(run.name, run.seconds, run.cached, _made_seconds(tree, run.name))
            for run in tree.last.stages
        )
    gaps.append(
        Gap("stages[].cached", "no finished `fettle run` left its list; times are from records/")
    )
    known = sorted(tree.records.items(), key=lambda item: item[1].started)
    timed = [
        StageFacts(name, record.seconds, None, record.seconds)
        for name, record in known
        if name in tree.artifacts
    ]
    untimed = [name for name in tree.artifacts if name not in tree.records]
    gaps += [
        Gap(f"stages[{name}].seconds", "restored from the cache without a record")
        for name in untimed
    ]
    return (*timed, *(StageFacts(name, None, None) for name in untimed))


def _made_seconds(tree: ArtifactTree, name: str) -> float | None:
    """Return what the run that made this very artefact took; None when it was made elsewhere."""
    record, sealed = tree.records.get(name), tree.artifacts.get(name)
    if record is None or sealed is None or record.output_digest != sealed.digest:
        return None
    return record.seconds


def _validation(tree: ArtifactTree, gaps: list[Gap]) -> Validation | None:
    facts = tree.facts("validate", ValidateFacts)
    if facts is None:
        gaps.append(Gap("validation", not_run("validate", tree)))
        return None
    return Validation(
        passed=facts.passed,
        rows=facts.rows,
        quarantined=facts.quarantined,
        by_rule=facts.by_rule,
    )


def _quality(tree: ArtifactTree, gaps: list[Gap]) -> Quality | None:
    """Read every metric of both models on test, and the recall of each class."""
    facts = tree.facts("verdict", VerdictFacts)
    if facts is None:
        gaps.append(Gap("quality", not_run("verdict", tree)))
        return None
    measures = tree.artifacts["verdict"].measures
    names = [name for name in measures if name in METRICS or name.startswith(RECALL)]
    metrics = {
        name: Metric(
            name=name,
            split=facts.split,
            float_=measures.get(f"float_{name}"),
            compressed=measures[name],
            drop=measures.get(f"{name}_drop"),
        )
        for name in names
    }
    return Quality(metric=facts.metric, metrics=metrics, churn=measures.get("churn"))


def _compression(tree: ArtifactTree, gaps: list[Gap]) -> Compression:
    """Read how the shipped file compares with the float model."""
    sealed = tree.artifacts.get("verdict")
    measures: Mapping[str, Measure] = sealed.measures if sealed else {}
    why = "verdict did not measure it" if sealed else not_run("verdict", tree)
    names = ("params_ratio", "macs_ratio", "size_ratio", "latency_ratio")
    gaps += [Gap(f"compression.{name}", why) for name in names if name not in measures]
    return Compression(**{name: measures.get(name) for name in names})


def _release(tree: ArtifactTree, gaps: list[Gap]) -> ReleaseSection:
    if tree.last is None:
        source = tree.input("source.json", SourceFingerprint)
        gaps += [
            Gap(f"release.{name}", "no finished `fettle run` has published this tree")
            for name in ("bento", "model_version", "git")
        ]
        return ReleaseSection(data=source.digest if source else None)
    given = tree.last.release
    return ReleaseSection(
        bento=given.bento,
        model_version=given.model_version,
        run_id=given.run_id,
        digest=given.digest,
        git=Git(commit=given.git.commit, dirty=given.git.dirty, source=given.git.source),
        data=given.data,
        folder=given.folder,
    )


def _environment(tree: ArtifactTree, gaps: list[Gap]) -> RunEnvironment:
    machine = tree.input("machine.json", RecordedMachine)
    if machine is None:
        gaps.append(Gap("environment.machine", "inputs/machine.json is not there"))
    versions: dict[str, str | None] = {}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return RunEnvironment(machine=machine, python=platform.python_version(), versions=versions)


def _data(tree: ArtifactTree) -> IngestedData | DataSource:
    source = tree.input("source.json", SourceFingerprint) or SourceFingerprint()
    found = tree.facts("ingest", IngestFacts)
    if found is None:
        return DataSource(source=source.source, fingerprint=source)
    return IngestedData.of(found, source)


def _licences(tree: ArtifactTree) -> Mapping[str, str | None]:
    verdict = tree.facts("verdict", VerdictFacts)
    return verdict.licences if verdict else {}


def _details(tree: ArtifactTree, choice: ChoiceDocument | None) -> Details:
    """Read what only the page shows; None for what a stage did not write."""
    absent = {name: not_run(name, tree) for name in STAGES if name not in tree.artifacts}
    search = tree.document("compress", "search.json", SearchDocument)
    return Details(
        absent=absent,
        curve=tree.document("finetune", "curve.json", TrainingCurve),
        layers=tree.document("compress", "layers.json", LayerTable),
        confusion=tree.document("verdict", "confusion.json", ConfusionDocument),
        checks=tree.document("validate", "validation.json", ValidationDocument),
        choice=choice,
        steps=_steps(tree),
        search=search,
        recipe=_recipe(tree, search),
        profile=tree.document(f"evaluate@{choice.target}", "profile.json", ProfileDocument)
        if choice
        else None,
    )


def _recipe(tree: ArtifactTree, search: SearchDocument | None) -> tuple[Options, ...] | None:
    """Return the recipe that made the model: the one found, else the one given."""
    given = tree.facts("compress", CompressFacts)
    return (search.recipe if search else ()) or (given.recipe if given else None)


def _steps(tree: ArtifactTree) -> tuple[StepFacts, ...]:
    """List the float model, then what each step of the recipe left; empty without a recipe."""
    done = tree.facts("compress", CompressFacts)
    if done is None or not done.steps:
        return ()
    compress, finetune = tree.artifacts["compress"], tree.artifacts.get("finetune")
    accuracy = finetune.measures.get("accuracy") if finetune else None
    first = StepFacts(
        use="float model",
        params=compress.measures["params_before"].value,
        macs=compress.measures["macs_before"].value,
        validation_accuracy=accuracy.value if accuracy else None,
    )
    rest = [
        StepFacts(
            use=step.use,
            params=step.params,
            macs=step.macs,
            validation_accuracy=step.validation_accuracy,
            notes=step.notes,
            skipped=step.skipped,
        )
        for step in done.steps
    ]
    return (first, *rest)
