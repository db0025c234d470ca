"""Seed faults into every target's file that runs here, and say which check caught each.

`make test-targets` trains a small network on the digits (720 validation images), makes each
target's file as `fettle run` does, judges it, and judges it again with each fault in it. A fault
that changes no answer is listed as such; a good file that is refused is a false refusal. Writes
benchmarks/results/target_faults.json; ends with 1 where a fault was missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from safetensors.numpy import load_file

from benchmarks import seeded_faults
from benchmarks.toolbox import ROOT
from fettle import manifest, params, plugins
from fettle.evaluation import answer_gate, target_refusal, untimed_evaluation
from fettle.evaluation.evaluation_job import EvaluationJob
from fettle.facts.export_facts import ExportFacts
from fettle.hardware.targets import Target
from fettle.params import Params
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs
from stages import export
from stages import inputs as first
from stages.__main__ import run_stage

OUT = ROOT / "benchmarks" / "results" / "target_faults.json"
READS = ("ingest", "validate", "finetune", "compress")
# A small network in a minute; 720 images decide a drop of two points.
SETTINGS = (
    "ingest.split={train: 0.4, validation: 0.4, test: 0.2}",
    "preprocess.size_px=16",
    "finetune.family=small_cnn",
    "finetune.options={width: 16, depth: 1}",
    "finetune.epochs_max=12",
    "compress.recipe=[]",
)
# Stale: the same network, trained from another seed for less long.
EARLIER = ("seed=21", "finetune.epochs_max=3")


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One judgement: `caught_by` is the check, or "missed", "no answer changed", "passed"."""

    target: str
    evidence: str
    fault: str
    caught_by: str
    n: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FaultJob:
    """One target's file, and what it is judged with; `work` is thrown away."""

    params: Params
    project: Path
    name: str
    target: Target
    runtime: ModuleType
    exported: ExportFacts
    work: Path

    def inputs(self, folder: Path) -> Inputs:
        """Name the artefacts, with `folder` as the target's export."""
        folders = {read: self.project / "artifacts" / read for read in READS}
        return Inputs({**folders, "export": folder}, self.project, self.work / "scratch", self.name)


def trained(folder: Path, *overrides: str) -> Path:
    """Make a project on the digits up to the compressed model."""
    folder.mkdir(parents=True)
    given = params.load(ROOT / "params.yaml", [*SETTINGS, *overrides])
    text = json.dumps(given.model_dump(mode="json", by_alias=True), indent=1)
    (folder / "params.yaml").write_text(text)  # JSON is YAML
    first.write(folder)
    for stage in ("ingest", "validate", "finetune", "latency_table", "compress"):
        run_stage(stage, None, folder, folder / "artifacts" / stage)
    return folder


def in_precision(job: FaultJob, out: Path) -> Path:
    """Write what the toolchain is given, the compressed model in the target's precision."""
    inputs = job.inputs(job.project / "artifacts" / "export" / job.name)
    model, _ = export.to_precision(job.params, inputs, job.target, MemoryRecorder())
    shutil.copyfile(model, out)  # the next one is written to the same place
    return out


def judge(job: FaultJob, folder: Path, fault: str, good: Path | None) -> FaultRow:
    """Judge a file by every check but the digest; `good` holds the good file's answers."""
    out = job.work / "judged"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    inputs = job.inputs(folder)
    parts = (job.params, inputs, MemoryRecorder(), job.target, job.runtime, job.exported)

    def row(caught: str, n: int, reason: str = "") -> FaultRow:
        return FaultRow(job.name, job.target.evidence, fault, caught, n, reason[:300])

    try:
        facts = untimed_evaluation.evaluate(EvaluationJob(*parts), job.name, out).facts
    except Exception as err:  # what a toolchain says of a broken file is its own
        reason = target_refusal.refusal_reason(err)
        return row("the placement" if "does not run on" in reason else "loading", 0, reason)
    kept = load_file(out / "answers.safetensors")
    n = len(kept["labels"])
    if facts.verdict == "refused":
        return row("parity", n, facts.reason)
    found = answer_gate.judge(
        job.params.compress.budget,
        kept["baseline"],
        kept["candidate"],
        kept["labels"],
        stated=None,
        images_min=job.params.evaluate.accuracy_images_min,
    )
    if found.verdict != "ship":
        return row("the accuracy budget", n, found.reason)
    if good is None:
        shutil.copytree(out, job.work / "good")
        return row("passed", n, found.reason)
    before = load_file(good / "answers.safetensors")["candidate"].argmax(axis=1)
    changed = int((before != kept["candidate"].argmax(axis=1)).sum())
    if not changed:
        return row("no answer changed", n)
    return row("missed", n, f"{changed} answers changed; {found.reason}")


def faulty_files(job: FaultJob, model: Path, stale: Path) -> Iterator[tuple[str, Path | FaultRow]]:
    """Yield each applicable fault with the folder of its file, or with what refused to make it."""
    faults = list(seeded_faults.MODEL_FAULTS)
    faults += [seeded_faults.FALLBACK] if hasattr(job.runtime, "placement") else []
    for fault in faults:
        broken = job.work / "broken.onnx"
        if seeded_faults.seeded(fault, model, broken):
            yield fault.name, compiled(job, broken, fault.name)
    yield "stale artefact", compiled(job, stale, "stale artefact")
    folder = job.work / "truncated"
    good = job.project / "artifacts" / "export" / job.name
    shutil.copytree(good, folder)
    seeded_faults.truncated(good / str(job.exported.entry), folder / str(job.exported.entry))
    yield "truncated file", folder


def compiled(job: FaultJob, model: Path, fault: str) -> Path | FaultRow:
    """Compile a faulty model to a folder of its own, or say what the toolchain refuses."""
    folder = job.work / "faulty"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        export.compile_for(job.params, job.inputs(folder), job.target, model, folder)
    except Exception as err:
        reason = target_refusal.refusal_reason(err)[:300]
        return FaultRow(job.name, job.target.evidence, fault, "compiling", 0, reason)
    return folder


def rows_of(project: Path, stale: Path, name: str, say: Callable[[str], None]) -> list[FaultRow]:
    """Judge one target's good file, then each fault in it; one row where it can't be had."""
    given = params.load(project / "params.yaml")
    target: Target = plugins.resolve("targets", name, where="targets").TARGET
    folder = project / "artifacts" / "export" / name
    work = Path(tempfile.mkdtemp(prefix="fettle-faults-"))
    try:
        run_stage("export", name, project, folder)
        exported = manifest.read(folder, ExportFacts, verify=False).facts
        absent = target_refusal.unavailable_reason(name, target, exported)
        if absent or target.evidence == "compile-only":
            kind = "not judged: no answers" if not absent else "not judged"
            return [FaultRow(name, target.evidence, "", kind, 0, str(absent or ""))]
        runtime = plugins.resolve("runtimes", target.runtime, where=name)
        job = FaultJob(given, project, name, target, runtime, exported, work)
        found = [judge(job, folder, "", None)]
        say(f"{name}: good file {found[0].caught_by}")
        if found[0].caught_by != "passed":
            return [replace(found[0], caught_by=f"refused by {found[0].caught_by}")]
        model = in_precision(job, work / "model.onnx")
        old = in_precision(replace(job, project=stale), work / "old.onnx")
        for fault, made in faulty_files(job, model, old):
            one = made if isinstance(made, FaultRow) else judge(job, made, fault, work / "good")
            say(f"{name}: {fault}: {one.caught_by}")
            found.append(one)
        return found
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(words: Sequence[str] | None = None) -> int:
    """Run the matrix, print it, write it; 1 where a fault was missed."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="these targets; else all")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="fettle-targets-") as folder:
        project = trained(Path(folder) / "now")
        stale = trained(Path(folder) / "earlier", *EARLIER)
        rows = [
            row
            for name in asked.only or plugins.names("targets")
            for row in rows_of(project, stale, name, lambda text: print(text, file=sys.stderr))
        ]
    print(table(rows))
    manifest.write_json(asked.out, [asdict(row) for row in rows])
    return int(any(row.caught_by == "missed" for row in rows))


def table(rows: Sequence[FaultRow]) -> str:
    """Lay the matrix out: a line a target, a column a fault, in words."""
    lines = []
    for name in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == name]
        lines.append(f"{name} ({own[0].evidence}): good file {own[0].caught_by} {own[0].reason}")
        lines += [f"    {row.fault:24} {row.caught_by}" for row in own[1:]]
    good = [row for row in rows if row.fault == "" and not row.caught_by.startswith("not judged")]
    refused = [row.target for row in good if row.caught_by != "passed"]
    faults = [row for row in rows if row.fault]
    silent = [row for row in faults if row.caught_by == "no answer changed"]
    missed = [row for row in faults if row.caught_by == "missed"]
    images = int(np.median([row.n for row in good])) if good else 0
    lines.append(
        f"{len(faults) - len(silent) - len(missed)} of {len(faults) - len(silent)} faults caught, "
        f"{len(silent)} more changed no answer; {len(refused)} of {len(good)} good files refused "
        f"(n = {images} images each){': ' + ', '.join(refused) if refused else ''}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
