"""A project with a tiny release published as `fettle run` does: folder, signature, lineage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tiny_project import ROOT
from tiny_release import TinyRelease

from fettle import manifest
from fettle.facts.last_run import GitSources, LastRun
from fettle.facts.last_run import PublishedRelease as PublishedFacts
from fettle.facts.lineage_document import BaseModelFiles, PublishingRun, StageOfRun
from fettle.release import lineage_record, release_store, signing
from fettle.report import report_facts, report_json

RUN = "c641660d612d477c99e800daaa4368f2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "fe" * 32
CHILD = "1" * 31 + "a"


class PublishedRelease:
    """`folder` is releases/DIGEST of a project whose dvc.yaml is empty."""

    def __init__(self, root: Path, *, chosen: str = "x86_ort_fp32") -> None:
        self.root = root
        self.work = TinyRelease(root, chosen=chosen)
        self.work.package()
        (root / "dvc.yaml").touch()
        shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
        self.folder, self.digest = release_store.publish(self.work.release, root / "releases")
        signing.sign(self.folder, signing.of_release(self.folder), os.environ)
        self.tag = f"tiny:{self.folder.name}"
        self.record()
        self.report()

    def artifact(self, address: str) -> str:
        """The digest of an artefact."""
        return manifest.read(self.work.project.folder(address)).digest

    def report(self) -> None:
        """Write report.json, as the run that published this release does."""
        release = PublishedFacts(
            bento=self.tag,
            name="tiny",
            model_version="3",
            run_id=RUN,
            digest=self.digest,
            folder=f"releases/{self.folder.name}",
            git=GitSources(commit=COMMIT, dirty=False, source="5" * 64),
            data="ab" * 32,
            passed=True,
        )
        last = LastRun(release=release, stages=(), finished="2026-11-27T01:15:03+00:00")
        last.write(self.root / ".fettle" / "last.json")
        told = report_json.to_json(report_facts.collect(self.root))
        manifest.write_json(self.root / "report" / "report.json", told)

    def record(self, *, run_id: str = RUN, commit: str | None = COMMIT) -> None:
        """Write the lineage of a run, in which finetune came from the cache."""
        names = ("ingest", "finetune", "verdict")
        run = PublishingRun(
            run_id=run_id,
            finished="2026-11-27T01:15:03+00:00",
            bento=self.tag,
            model_version="3",
            git=GitSources(commit=commit, dirty=False, source="5" * 64),
            source="shapes",
            data="ab" * 32,
            model=BaseModelFiles(family="onnx_file", files={"net.onnx": MODEL}),
            passed=True,
            stages=tuple(
                StageOfRun(
                    name=name,
                    cached=name == "finetune",
                    digest=self.artifact(name),
                    run_id=CHILD if name == "verdict" else None,
                )
                for name in names
            ),
        )
        lineage_record.append(self.folder, digest=self.digest, name="tiny", run=run)
