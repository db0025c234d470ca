"""Write the release folder: all that serving needs, what it was measured to be, and its digests.

reads     ingest, validate, finetune (labels, data, family), compress, export of every target (the
          chosen file is carried), evaluate of every target, select, verdict (for the card); the
          project's bentos/SERVICE and requirements.lock
writes    release/, which is also a Bento's `src`: service.py and the sources it imports, model/,
          preprocess.json, labels.json, gate.json, validation.json, card.md, sbom.cdx.json,
          requirements.txt, bentofile.yaml, evidence/ (fettle/release/carried_evidence.py),
          targets/NAME/ of each target that ships beside the chosen one, and release.json with the
          digests of all the others
params    preprocess, release, targets
refuses   a service that does not exist; a package that is missing, or is not the locked version;
          a release that, loaded again, answers otherwise than the file that was chosen

It packages also when the gate did not pass: gate.json says so, and the flow decides.
facts and release.json: fettle/facts/package_facts.py.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np

from fettle import manifest, plugins
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.errors import OurFault, ProjectError
from fettle.evaluation import accuracy_statistics
from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.package_facts import (
    DataOrigin,
    InputSignature,
    OutputSignature,
    PackageFacts,
    ReleaseDocument,
    RuntimeEntry,
)
from fettle.facts.select_facts import CHOICE, ChoiceDocument
from fettle.facts.validate_facts import ValidateFacts
from fettle.facts.verdict_facts import VerdictFacts
from fettle.hardware.isolated import toolchain
from fettle.params import Params
from fettle.preprocessing import Floats
from fettle.recorder import Recorder
from fettle.release import (
    additional_targets,
    carried_evidence,
    locked_requirements,
    released_run,
    sbom,
    source_closure,
)
from fettle.release.locked_requirements import Package
from fettle.release.released_run import ReleasedRun
from fettle.report import model_card
from fettle.serving import release_bundle
from fettle.stage_contract import Inputs, Outputs

READS = (
    "ingest",
    "validate",
    "finetune",
    "compress",
    "export@*",
    "evaluate@*",
    "select",
    "verdict",
)
SECTIONS = ("preprocess", "release", "targets")
MEASURES = False
CARRIES_SOURCES = True  # a release holds the text of its service, and what that imports

CHECK_IMAGES = 32  # enough to tell logits from probabilities, and a wrong file from the right one
STATED = ("bentoml", "numpy", "pillow")  # versions in release.json beside the runtime's own
# "service" without a class name: BentoML takes the one service of that module
BENTOFILE = """\
service: "service"
description: "file:./card.md"
include: ["*"]
python:
  requirements_txt: "./requirements.txt"
  lock_packages: false # they are pinned already, and locking would need the network
"""


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[PackageFacts]:
    """Make the artefact; see the file's docstring."""
    release = out / "release"
    release.mkdir()
    read = read_artefacts(inputs)
    target = read.choice.target
    export = inputs.matrix("export")[target]
    images = split_reader.images(inputs, params, "validation", most=CHECK_IMAGES)
    recorder.progress(0.1, f"packaging {target}")

    copy_model(read, export, release)
    code, packages, direct = copy_sources(inputs.project, params, read.exported.facts, release)
    logits = predict_logits(read, export, params, images)
    versions = {p.name: p.version for p in packages if p.name in {*direct, *STATED}}
    more: dict[str, object] = {"code": code, "versions": versions}
    beside = additional_targets.copy(release, read.choice, inputs.matrix("export"), read.evaluated)
    stated = describe(params, read, images.classes, logits).model_copy(
        update=more | ({"targets": beside} if beside else {})
    )

    write_facts(release, params, read, images.classes)
    carried_evidence.write(release, inputs.folders)
    manifest.write_text(release / "card.md", model_card.text(released_run.card(stated, read)))
    bill = released_run.bill_of_materials(stated, read)
    manifest.write_text(release / "sbom.cdx.json", sbom.text(*bill, packages, direct))
    manifest.write_text(release / "requirements.txt", locked_requirements.text(packages))
    manifest.write_text(release / "bentofile.yaml", BENTOFILE)
    digest = seal(release, stated)
    check(release, digest, images, logits)
    recorder.file(release / "card.md")
    size_bytes = sum(f.bytes for f in manifest.list_files(release))
    passed = read.verdict.facts.passed
    return Outputs(
        facts=PackageFacts(digest=digest, target=target, passed=passed, size_bytes=size_bytes)
    )


def read_artefacts(inputs: Inputs) -> ReleasedRun:
    """Read what the stages above left; the runner has verified it."""
    choice = ChoiceDocument.read(inputs["select"] / CHOICE)
    export = inputs.matrix("export")[choice.target]
    return ReleasedRun(
        ingest=manifest.read(inputs["ingest"], IngestFacts, verify=False),
        validate=manifest.read(inputs["validate"], ValidateFacts, verify=False),
        finetune=manifest.read(inputs["finetune"], FinetuneFacts, verify=False),
        evaluated={
            name: manifest.read(folder, EvaluateFacts, verify=False)
            for name, folder in inputs.matrix("evaluate").items()
        },
        choice=choice,
        verdict=manifest.read(inputs["verdict"], VerdictFacts, verify=False),
        exported=manifest.read(export, ExportFacts, verify=False),
    )


def copy_model(read: ReleasedRun, export: Path, release: Path) -> None:
    """Copy the chosen target's files to model/."""
    for file in read.exported.files:
        place = release / "model" / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(export / file.path, place)


def copy_sources(
    project: Path, params: Params, exported: ExportFacts, release: Path
) -> tuple[str, list[Package], list[str]]:
    """Copy the service and all it imports; return their digest, every package, the direct ones.

    Raises ProjectError when there is no such service.
    """
    folder = project / "bentos" / params.release.service
    if not (folder / "service.py").is_file():
        raise ProjectError(
            "params.yaml: release.service names no service",
            got=f"'{params.release.service}'",
            rule="it is a folder in bentos/ with a service.py",
            fix="set release.service to one of bentos/*",
        )
    package = Path(next(iter(import_module("fettle").__path__)))
    runtime = f"fettle/hardware/runtimes/{exported.runtime}.py"  # loaded by name
    own = {p.stem: p.with_suffix("") for p in folder.glob("*.py")}
    sources = source_closure.closure(
        {"service.py": folder / "service.py", runtime: package.parent / runtime},
        {**own, "fettle": package},
    )
    files = {**sources.files, **run_elsewhere(exported.runtime)}
    for place, path in files.items():
        (release / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, release / place)
    digest = manifest.digest_of({path: manifest.sha256_file(release / path) for path in files})
    direct = locked_requirements.of_modules(sources.foreign)
    return digest, locked_requirements.closure(direct, project / locked_requirements.LOCK), direct


def run_elsewhere(runtime: str) -> dict[str, Path]:
    """Name the files of a toolchain's worker: another Python runs them, no import shows them."""
    module = plugins.resolve("runtimes", runtime, where="targets")
    if not hasattr(module, "TOOLCHAIN"):
        return {}
    needed = (module.TOOLCHAIN.lock, module.TOOLCHAIN.script, module.TOOLCHAIN.harness)
    place = Path("fettle/hardware/isolated")
    return {(place / path.relative_to(toolchain.HERE)).as_posix(): path for path in needed}


def predict_logits(read: ReleasedRun, export: Path, params: Params, images: Images) -> Floats:
    """Run the chosen file, where export left it, on the first validation images."""
    facts = read.exported.facts
    runtime = plugins.resolve("runtimes", facts.runtime, where="targets")
    session = runtime.open(export / str(facts.entry), threads=1)
    logits: Floats = session.run(split_reader.preprocess(params).normalise(images.pixels[:]))
    return logits


def _are_probabilities(rows: Floats) -> bool:
    """Tell whether softmax is already in the model: then quality takes the rows as they are."""
    return bool(np.array_equal(accuracy_statistics.probabilities(rows), rows.astype(np.float64)))


def describe(
    params: Params, read: ReleasedRun, classes: list[str], logits: Floats
) -> ReleaseDocument:
    """Release description: name, target, runtime, typed signature, where it comes from."""
    facts, size_px = read.exported.facts, params.preprocess.side_px
    return ReleaseDocument(
        schema_=release_bundle.SCHEMA,
        name=params.release.name,
        target=facts.target,
        runtime=RuntimeEntry(
            name=facts.runtime,
            entry=f"model/{facts.entry}",
            precision=facts.precision,
            threads=read.evaluated[facts.target].facts.threads or 1,
        ),
        input=InputSignature(
            dtype="uint8",
            shape=(None, params.preprocess.channels, size_px, size_px),
            low=0,
            high=255,
        ),
        output=OutputSignature(
            kind="probabilities" if _are_probabilities(logits) else "logits",
            dtype="float32",
            shape=(None, len(classes)),
        ),
        data=DataOrigin(
            source=read.ingest.facts.source,
            digest=read.ingest.facts.digest,
            ingest=read.ingest.digest,
            validate_=read.validate.digest,
        ),
        passed=read.verdict.facts.passed,
    )


def write_facts(release: Path, params: Params, read: ReleasedRun, classes: list[str]) -> None:
    """Write preprocess.json, labels.json, gate.json and validation.json."""
    preprocess = split_reader.preprocess(params).to_dict()
    manifest.write_json(release / release_bundle.PREPROCESS, preprocess)
    manifest.write_json(release / release_bundle.LABELS, classes)
    manifest.write_json(release / "gate.json", released_run.gate_document(read))
    manifest.write_json(release / "validation.json", released_run.validation_document(read))


def seal(release: Path, stated: ReleaseDocument) -> str:
    """Write release.json with the digest of every other file; return the folder's digest."""
    files = {file.path: file.sha256 for file in manifest.list_files(release)}
    stated.model_copy(update={"files": files}).write(release / release_bundle.RELEASE)
    return manifest.tree_digest(release)


def check(release: Path, digest: str, images: Images, logits: Floats) -> None:
    """Load the release as a server would, and compare its answers with the chosen file's.

    Raises OurFault when anything differs.
    """
    loaded = release_bundle.load(release)
    gap = float(
        np.abs(loaded.predict(images.pixels[:]) - accuracy_statistics.probabilities(logits)).max()
    )
    if loaded.digest != digest or gap > 1e-6:
        raise OurFault(
            "the release answers otherwise than the file that was chosen",
            got=f"digest {loaded.digest[:12]}, probabilities up to {gap:.2g} apart",
            rule=f"digest {digest[:12]}, at most 1e-6 apart",
        )
