"""Run one stage: `fettle stage NAME [TARGET]`, the thin command that dvc.yaml calls.

Reads the stage's upstream artefacts (verified), its own sections of params.yaml; writes
`artifacts/NAME[/TARGET]`, sealed by a manifest, and `records/NAME[@TARGET].json` with the clock
and the machine. On a failure it leaves `records/….error.json` {kind, text}, because DVC turns
every exit code into 255, and nothing half-written under `artifacts/`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import cast

import psutil

from fettle import manifest, params, params_scope, user_traceback
from fettle.errors import FettleError, ModelError, OurFault, TransientError, UserError
from fettle.evaluation.target_refusal import is_disk_full
from fettle.hardware.measurement_lock import machine_lock
from fettle.process_lifetime import die_with_parent
from fettle.recorder import JsonlRecorder
from fettle.stage_contract import Inputs, Stage

# The stage itself, whose code is read apart (see fettle/staleness/reachability.py).
IMPORTS_BY_NAME: tuple[str, ...] = ()
FIRST = "inputs"  # the stage that seals no artefact


def main(argv: list[str]) -> int:
    """Run the stage named by argv; return the exit code (0 done, 2 user error, 1 ours)."""
    die_with_parent()
    name, target = argv[0], (argv[1] if len(argv) > 1 else None)
    project = Path.cwd()
    address = f"{name}@{target}" if target else name
    out = project / "artifacts" / name / (target or "")
    error_file = project / "records" / f"{address}.error.json"
    error_file.unlink(missing_ok=True)
    began = False
    try:
        if name == FIRST:
            importlib.import_module("stages.inputs").write(project)
            return 0
        _refuse_stale_code(project, name, target)
        began = True
        run_stage(name, target, project, out)
    except BaseException as err:
        if began:
            shutil.rmtree(out, ignore_errors=True)
        failure = explain(err)
        manifest.write_json(error_file, {"kind": failure.kind, "text": str(failure)})
        if isinstance(failure, OurFault):
            traceback.print_exc()
        print(f"{address}: {failure}", file=sys.stderr)
        return failure.exit_code
    return 0


def _refuse_stale_code(project: Path, name: str, target: str | None) -> None:
    from fettle.staleness import (
        code_digest,  # here: what the stages depend on is not how that is found out
    )

    home = Path(os.environ.get("FETTLE_ROOT", project))
    code_digest.refuse_stale(project, home / ".fettle", name, target)


def run_stage(name: str, target: str | None, project: Path, out: Path) -> None:
    """Verify the inputs, run the stage alone or beside others, seal and record its artefact."""
    stage = cast(Stage, importlib.import_module(f"stages.{name}"))
    address = f"{name}@{target}" if target else name
    settings = params.load(project / "params.yaml")
    folders = input_folders(stage, target, settings.targets, project)
    sealed_inputs = {up: manifest.read(folder) for up, folder in folders.items()}
    digests = {up: read.digest for up, read in sealed_inputs.items()}
    facts = [read.facts.to_json() for read in sealed_inputs.values()]
    settings = params_scope.follow(settings, facts)
    scoped = params.scope(settings, stage.SECTIONS)
    key = scratch_key(address, digests, settings, stage.SECTIONS)
    scratch = project / ".fettle" / "scratch" / key
    inputs = Inputs(folders, project, scratch, target)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    recorder = JsonlRecorder(project / "records" / f"{address}.jsonl")
    with machine_lock(alone=stage.MEASURES, on_wait=lambda text: _say(address, recorder, text)):
        started = time.time()
        outputs = stage.run(scoped, inputs, out, recorder)
        seconds = time.time() - started
    sealed = manifest.write(
        out, address, inputs=digests, measures=outputs.measures, facts=outputs.facts
    )
    recorder.close()
    shutil.rmtree(scratch, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    manifest.write_json(
        project / "records" / f"{address}.json",
        {
            "stage": address,
            "started": started,
            "seconds": seconds,
            # from the interpreter's start: imports, verification and waiting included
            "process_seconds": process_age_s(),
            "peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024),
            "disk_bytes": sum(file.bytes for file in manifest.list_files(out)),
            "host": platform.node(),
            "images": source_images(project),
            "asked": sections_of(settings, stage.SECTIONS),
            "output_digest": sealed.digest,
        },
    )


def process_age_s() -> float:
    """Return how long this process has lived, in seconds, to a hundredth.

    On Linux by the kernel's own count since boot: psutil adds the time of boot to it, which
    /proc/stat gives in whole seconds.
    """
    if not sys.platform.startswith("linux"):
        return time.time() - psutil.Process().create_time()
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    born = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc(5): field 22, starttime
    return time.clock_gettime(time.CLOCK_BOOTTIME) - born


def _say(address: str, recorder: JsonlRecorder, text: str) -> None:
    """Tell the flow and the log of something that is no result."""
    recorder.progress(0.0, text)
    print(f"{address}: {text}", file=sys.stderr, flush=True)


def input_folders(
    stage: Stage, target: str | None, targets: list[str], project: Path
) -> dict[str, Path]:
    """Resolve READS: "compress", "export@" (this target's own), "evaluate@*" (every target's)."""
    folders: dict[str, Path] = {}
    for read in stage.READS:
        upstream, at, which = read.partition("@")
        chosen = targets if which == "*" else [target or ""] if at else [""]
        for entry in chosen:
            address = f"{upstream}@{entry}" if which == "*" else upstream
            folders[address] = project / "artifacts" / upstream / entry
    return folders


def scratch_key(
    address: str, digests: dict[str, str], settings: params.Params, sections: tuple[str, ...]
) -> str:
    """Name the scratch folder after everything the stage's result depends on."""
    text = json.dumps([address, digests, sections_of(settings, sections)], sort_keys=True)
    return f"{address}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def sections_of(settings: params.Params, sections: tuple[str, ...]) -> dict[str, object]:
    """Return the declared sections (dotted) of the params as JSON."""
    doc, chosen = settings.model_dump(mode="json", by_alias=True), dict[str, object]()
    for section in sections:
        node = doc
        for part in section.split("."):
            node = node[part]
        chosen[section] = node
    return chosen


def source_images(project: Path) -> int | None:
    """Count the source's images as `fettle run` did; None where nobody did."""
    file = project / "inputs" / "source.json"
    return json.loads(file.read_text()).get("images") if file.is_file() else None


def explain(err: BaseException) -> FettleError:
    """Map any exception to one of ours.

    A full disk may pass; a file that may not be used, and what came through the user's own code,
    are the user's to mend; the rest is our fault.
    """
    if isinstance(err, FettleError):
        return err
    if is_disk_full(err):
        return TransientError(
            "the disk is full",
            got=f"{type(err).__name__}: {err}",
            rule="an artefact is written whole or not at all; the last good one is kept",
            fix="free some space (`fettle doctor` says how much is left) and run again",
        )
    if isinstance(err, PermissionError) and err.filename:
        return UserError(
            f"{os.fsdecode(err.filename)} cannot be used",
            got=f"{type(err).__name__}: {err.strerror}",
            rule="a stage reads its inputs and writes its artefact as the user who runs it",
            fix="make it readable and writable for this user, and run again",
        )
    line = user_traceback.line(err, [Path.cwd(), Path(os.environ.get("FETTLE_ROOT", "."))])
    if line:
        return ModelError(
            f"your own code failed{line}",
            got=f"{type(err).__name__}: {err}",
            rule="it runs in every stage that trains, cuts or exports the model",
            fix="mend that line; the last good artefacts are kept",
        )
    return OurFault(
        f"{type(err).__name__}: {err}",
        fix="report it with the traceback above; the last good artefacts are kept",
    )
