"""Report facts of the last run, from its artefacts, its records and `.fettle/last.json`.

Starts no tool and loads no model. What is not there becomes a Gap with its reason, never a guess.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path

from fettle.measure import Measure
from fettle.params_schema import METRICS
from fettle.report import artifact_reader as trees
from fettle.report import target_rows
from fettle.report.artifact_reader import ArtifactTree, not_run
from fettle.report.report_schema import (
    RECALL,
    Compression,
    Facts,
    FailureFacts,
    Gap,
    Git,
    Json,
    Metric,
    Quality,
    ReleaseFacts,
    StageFacts,
    Validation,
    VerdictFacts,
    to_json,
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
    verdict = _verdict(tree)
    targets = target_rows.targets(tree, verdict.chosen, gaps)
    baseline, plain = target_rows.yardsticks(tree, verdict.chosen)
    return Facts(
        project=project,
        name=_name(tree),
        finished=(tree.last or {}).get("finished"),
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
        details=_details(tree),
        gaps=tuple(gaps),
        warnings=tuple(tree.outdated()),
    )


def _name(tree: ArtifactTree) -> str:
    """Name the run: the release's name, else the folder's."""
    release = (tree.last or {}).get("release") or {}
    return str(release.get("name") or tree.project.resolve().name)


def _verdict(tree: ArtifactTree) -> VerdictFacts:
    choice = tree.document("select", "choice.json") or {}
    facts = tree.facts("verdict")
    return VerdictFacts(
        passed=facts.get("passed"),
        reasons=tuple(str(reason) for reason in facts.get("reasons", ())),
        chosen=choice.get("target"),
        why=choice.get("why"),
    )


def _stages(tree: ArtifactTree, gaps: list[Gap]) -> tuple[StageFacts, ...]:
    """Take the flow's own list; without one, the records in the order the stages started."""
    if tree.last and tree.last.get("stages"):
        return tuple(
            StageFacts(s["name"], s["seconds"], s["cached"], _made_seconds(tree, s["name"]))
            for s in tree.last["stages"]
        )
    gaps.append(
        Gap("stages[].cached", "no finished `fettle run` left its list; times are from records/")
    )
    known = sorted(tree.records.items(), key=lambda item: item[1].get("started", 0))
    timed = [
        StageFacts(name, record["seconds"], None, record["seconds"])
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
    if record is None or sealed is None or record.get("output_digest") != sealed.digest:
        return None
    return float(record["seconds"])


def _validation(tree: ArtifactTree, gaps: list[Gap]) -> Validation | None:
    sealed = tree.artifacts.get("validate")
    if sealed is None:
        gaps.append(Gap("validation", not_run("validate", tree)))
        return None
    facts = sealed.facts
    return Validation(
        passed=bool(facts["passed"]),
        rows=int(facts["rows"]),
        quarantined=int(facts["quarantined"]),
        by_rule={str(rule): int(n) for rule, n in facts.get("by_rule", {}).items()},
    )


def _quality(tree: ArtifactTree, gaps: list[Gap]) -> Quality | None:
    """Read every metric of both models on test, and the recall of each class."""
    sealed = tree.artifacts.get("verdict")
    if sealed is None:
        gaps.append(Gap("quality", not_run("verdict", tree)))
        return None
    measures, facts = sealed.measures, sealed.facts
    names = [name for name in measures if name in METRICS or name.startswith(RECALL)]
    metrics = {
        name: Metric(
            name=name,
            split=facts["split"],
            float_=measures.get(f"float_{name}"),
            compressed=measures[name],
            drop=measures.get(f"{name}_drop"),
        )
        for name in names
    }
    return Quality(metric=facts["metric"], metrics=metrics, churn=measures.get("churn"))


def _compression(tree: ArtifactTree, gaps: list[Gap]) -> Compression:
    """Read how the shipped file compares with the float model."""
    sealed = tree.artifacts.get("verdict")
    measures: Mapping[str, Measure] = sealed.measures if sealed else {}
    why = "verdict did not measure it" if sealed else not_run("verdict", tree)
    names = ("params_ratio", "macs_ratio", "size_ratio", "latency_ratio")
    gaps += [Gap(f"compression.{name}", why) for name in names if name not in measures]
    return Compression(**{name: measures.get(name) for name in names})


def _release(tree: ArtifactTree, gaps: list[Gap]) -> ReleaseFacts:
    given = (tree.last or {}).get("release")
    if given is None:
        gaps += [
            Gap(f"release.{name}", "no finished `fettle run` has published this tree")
            for name in ("bento", "model_version", "git")
        ]
        return ReleaseFacts(data=tree.input("source.json").get("digest"))
    git = given["git"]
    return ReleaseFacts(
        bento=given["bento"],
        model_version=given["model_version"],
        run_id=given["run_id"],
        digest=given["digest"],
        git=Git(commit=git["commit"], dirty=git["dirty"], source=git["source"]),
        data=given["data"],
        folder=given["folder"],
    )


def _environment(tree: ArtifactTree, gaps: list[Gap]) -> Json:
    machine = tree.input("machine.json")
    if not machine:
        gaps.append(Gap("environment.machine", "inputs/machine.json is not there"))
    versions: dict[str, str | None] = {}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {"machine": machine or None, "python": platform.python_version(), "versions": versions}


def _data(tree: ArtifactTree) -> Json:
    source = tree.input("source.json")
    return {"source": source.get("source"), "fingerprint": source, **dict(tree.facts("ingest"))}


def _details(tree: ArtifactTree) -> Json:
    """Read what only the page shows; None for what a stage did not write."""
    absent = {name: not_run(name, tree) for name in STAGES if name not in tree.artifacts}
    return {
        "absent": absent,
        "curve": tree.document("finetune", "curve.json"),
        "layers": tree.document("compress", "layers.json"),
        "confusion": tree.document("verdict", "confusion.json"),
        "checks": tree.document("validate", "validation.json"),
        "choice": tree.document("select", "choice.json"),
        "steps": _steps(tree),
        "search": tree.document("compress", "search.json"),
        "recipe": _recipe(tree),
        "profile": _profile(tree),
    }


def _recipe(tree: ArtifactTree) -> list[Json] | None:
    """Return the recipe that made the model: the one found, else the one given."""
    found: Json = tree.document("compress", "search.json") or {}
    recipe: list[Json] | None = found.get("recipe") or tree.facts("compress").get("recipe")
    return recipe


def _profile(tree: ArtifactTree) -> Json | None:
    """Return where the time goes in the float model and in the chosen target's file."""
    chosen = (tree.document("select", "choice.json") or {}).get("target")
    doc: Json | None = tree.document(f"evaluate@{chosen}", "profile.json") if chosen else None
    return doc


def _steps(tree: ArtifactTree) -> list[Json]:
    """List the float model, then what each step of the recipe left; empty without a recipe."""
    done: list[Json] = tree.facts("compress").get("steps") or []
    if not done:
        return []
    compress, finetune = tree.artifacts["compress"], tree.artifacts.get("finetune")
    accuracy = finetune.measures.get("accuracy") if finetune else None
    first = {
        "use": "float model",
        "params": compress.measures["params_before"].value,
        "macs": compress.measures["macs_before"].value,
        "validation_accuracy": accuracy.value if accuracy else None,
    }
    return [first, *done]
