"""Publication of a run: release folder, Bento, version in the model registry, and report.

All of it is a side effect, so none of it is a stage; and idempotent, by the digest of the release.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from fettle import manifest
from fettle.adapters import bento_store, git_sources
from fettle.adapters.mlflow_tracking import Tracker
from fettle.facts.last_run import GitSources, LastRun, PublishedRelease, StageTime
from fettle.facts.lineage_document import BaseModelFiles, PublishingRun, StageOfRun
from fettle.facts.verdict_facts import VerdictFacts
from fettle.measure import Measure
from fettle.params import Params
from fettle.project import Project
from fettle.release import lineage_record, release_store, signing
from fettle.report import html_page, report_figures, report_json
from fettle.report import report_facts as report_facts
from fettle.report.markdown_report import markdown
from fettle.report.report_values import Facts
from fettle.rollout.supervisor.state_layout import StateLayout


def publish(
    project: Project,
    tracker: Tracker,
    params: Params,
    sources: git_sources.GitState,
    stages: Sequence[StageTime],
    *,
    confirm: Callable[[], None],
) -> LastRun:
    """Make the folder, the Bento, the registry's version and the report; return what is kept of the
    run in `.fettle/last.json`.

    `confirm` is asked before anything that another run would be mistaken by: the folder and the
    Bento are named after their content, the registry's aliases and last.json are not.
    """
    package = project.tree / "artifacts" / "package" / "release"
    folder, digest = release_store.publish(package, project.releases)
    passed = manifest.read(project.tree / "artifacts" / "verdict", VerdictFacts).facts.passed
    tag = bento_store.build(folder, name=params.release.name, version=digest[: manifest.SHORT])
    signing.ensure(folder, bento_store.bento_folder(tag), os.environ)
    data = json.loads((project.tree / "inputs" / "source.json").read_text())
    tracker.log_data(params.ingest.source, data["digest"], params.ingest.source)
    tags = {
        "release_digest": digest,
        "bento_tag": tag,
        "git": sources["commit"] or sources["source"],
        "data": data["digest"],
        "gate": "passed" if passed else "not passed",
    }
    confirm()
    version = register(tracker, project, folder, tags, passed=passed)
    last = LastRun(
        release=PublishedRelease(
            bento=tag,
            name=params.release.name,
            model_version=version,
            run_id=tracker.parent_run,
            digest=digest,
            folder=str(folder.relative_to(project.root)),
            git=GitSources(**sources),
            data=data["digest"],
            passed=passed,
        ),
        stages=tuple(stages),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    lineage_record.append(
        folder, digest=digest, name=params.release.name, run=publishing_run(project, tracker, last)
    )
    last.write(project.last)
    if not passed:
        emit_event(
            "fettle.gate.failed",
            resource={"prefect.resource.id": f"fettle.release.{digest[: manifest.SHORT]}"},
            payload={"name": params.release.name, "release": tag, "commit": sources["commit"]},
        )
    _show(project, tracker, last)
    return last


def publishing_run(project: Project, tracker: Tracker, last: LastRun) -> PublishingRun:
    """Return what the release's lineage keeps of this run."""
    release = last.release
    asked = json.loads((project.tree / "inputs" / "source.json").read_text())
    model = json.loads((project.tree / "inputs" / "model.json").read_text())
    return PublishingRun(
        run_id=release.run_id,
        finished=last.finished,
        bento=release.bento,
        model_version=release.model_version,
        git=release.git,
        source=asked["source"],
        data=release.data,
        model=BaseModelFiles.model_validate(model),
        passed=release.passed,
        stages=tuple(
            StageOfRun(
                name=stage.name,
                cached=stage.cached,
                digest=_digest(project.tree / "artifacts", stage.name),
                run_id=tracker.stage_runs.get(stage.name),
            )
            for stage in last.stages
        ),
    )


def _digest(artifacts: Path, stage: str) -> str | None:
    """Digest a stage's artefact; None for one that seals none."""
    folder = artifacts / stage.replace("@", "/")
    sealed = (folder / manifest.NAME).is_file()
    return manifest.read(folder, verify=False).digest if sealed else None


def register(
    tracker: Tracker, project: Project, folder: Path, tags: Mapping[str, str], *, passed: bool
) -> str:
    """Register a published release; return its model version.

    One that passed becomes the challenger, unless a rollout is under way, which keeps its own: then
    this release waits, and gets the alias when that is over.
    """
    busy = StateLayout(project.state / "canary").active()
    name = tags["bento_tag"].partition(":")[0]
    return tracker.register(name, folder, tags, challenger=passed and busy is None)


def headline(facts: Facts) -> dict[str, float]:
    """Pick the numbers that MLflow's list of runs shows beside each run; what is unknown is out."""
    found: dict[str, Measure | None] = {}
    if facts.quality:
        main = facts.quality.main
        found |= {
            f"{main.name}.float": main.float_,
            f"{main.name}.compressed": main.compressed,
            f"{main.name}.drop": main.drop,
        }
    found |= {
        "params_ratio": facts.compression.params_ratio,
        "size_ratio": facts.compression.size_ratio,
        "latency_ratio": facts.compression.latency_ratio,
    }
    return {name: measure.value for name, measure in found.items() if measure}


def _show(project: Project, tracker: Tracker, last: LastRun) -> None:
    """Render the report and hand its facts to the UIs."""
    facts = report_facts.collect(project.tree)
    html = project.tree / "report" / "index.html"
    html_page.render(facts, html)
    manifest.write_json(html.with_name("report.json"), report_json.to_json(facts))
    pictures = report_figures.figures(facts, html.parent / "figures")
    tracker.metrics(headline(facts))
    tracker.log_files([html, html.with_name("report.json"), *pictures], "report")
    tracker.finish()
    create_markdown_artifact(markdown(facts), key="release", description="The release")
    create_table_artifact(
        [
            {
                "target": target.name,
                "verdict": target.verdict,
                "size_bytes": target.size_bytes,
                "reason": target.reason,
            }
            for target in facts.targets
        ],
        key="targets",
        description="Every target with its verdict",
    )
    create_table_artifact(
        [dict(stage) for stage in last.stages], key="stages", description="Time a stage"
    )
