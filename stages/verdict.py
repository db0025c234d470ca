"""Score the chosen file and the float model once on test, and hold the result to every bound.

reads     ingest, validate (test images), finetune (the float model), export of every target (the
          chosen one's file is run, by its own runtime), select
writes    verdict.json (all of it, for a person or a script), metrics.json (plain numbers for `dvc
          metrics show`), confusion.json, predictions.parquet (one row a test image: row, label,
          predicted, probability, float_predicted, float_probability, probabilities and
          float_probabilities in the order of the classes)
params    preprocess, compress.budget, verdict, targets
refuses   nothing of its own: a bound that does not hold makes passed false, with the reason; the
          flow acts on it

measures, on test: float_METRIC, METRIC and METRIC_drop of each metric; recall.CLASS,
float_recall.CLASS and recall_drop.CLASS; churn; params_ratio, macs_ratio, size_ratio, latency_ratio
(float model over the shipped file).
facts, verdict.json and confusion.json: fettle/facts/verdict_facts.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fettle import manifest, params_scope, plugins
from fettle.data import image_table, split_reader
from fettle.data.split_reader import Images
from fettle.errors import OurFault
from fettle.evaluation import accuracy_statistics, licence_check
from fettle.evaluation.batch_scoring import predict_logits
from fettle.facts.asked_goal import AskedBudget
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.select_facts import CHOICE, ChoiceDocument
from fettle.facts.verdict_facts import (
    VERDICT,
    AskedBounds,
    AskedLimit,
    ConfusionDocument,
    ModelCounts,
    RowsLedger,
    VerdictDocument,
    VerdictFacts,
)
from fettle.hardware import onnx_cost
from fettle.measure import Measure
from fettle.params import Params
from fettle.preprocessing import Floats
from fettle.recorder import Recorder
from fettle.release import release_gate, verdict_ledger
from fettle.release.release_gate import SPLIT, PairedAnswers
from fettle.stage_contract import Inputs, Outputs

READS = ("ingest", "validate", "finetune", "export@*", "select")
SECTIONS = ("preprocess", "compress.budget", "verdict", "targets")
MEASURES = False


@dataclass(frozen=True, slots=True)
class ShippedTarget:
    """The chosen target: its folder, its export's facts, its speed-up over the float model, and the
    limits of compress.constraints that it breaks.
    """

    folder: Path
    facts: ExportFacts
    speedup: Measure
    over: tuple[str, ...] = ()


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[VerdictFacts]:
    """Make the artefact; see the file's docstring."""
    shipped = find_shipped(inputs)
    finetuned = manifest.read(inputs["finetune"], FinetuneFacts, verify=False).facts
    images = split_reader.images(inputs, params, SPLIT)
    recorder.progress(0.1, f"scoring {len(images.ids)} test images, once")
    float_params = params_scope.at_side(params, finetuned.size_px)
    before, after = score((float_params, params), inputs, shipped, images)
    answers = PairedAnswers(before, after, images.labels, images.classes)
    float_model = count_float_model(float_params, inputs)
    measures = release_gate.compare(answers)
    measures |= release_gate.size_ratios(float_model, count_shipped(shipped.facts))
    measures["latency_ratio"] = shipped.speedup
    bounds, stated = asked_bounds(params, inputs), licences(params, inputs, finetuned)
    ledger = record_verdict(inputs, out, shipped, images, bounds)
    judgement = release_gate.judge(
        answers, measures, bounds, over=shipped.over, licences=stated, ledger=ledger
    )
    for text in release_gate.warn_of_looks(ledger, bounds.budget.confidence, len(images.ids)):
        recorder.note("warning", text.removeprefix("warning: "))
    facts = VerdictFacts(
        passed=judgement.passed,
        reasons=judgement.reasons,
        failed=judgement.failed,
        target=shipped.facts.target,
        metric=bounds.budget.metric,
        budget=judgement.budget,
        split=SPLIT,
        classes=tuple(images.classes),
        n=len(images.ids),
        bounds=bounds,
        float_model=float_model,
        ledger=ledger,
        licences=stated,
    )
    for name, measure in measures.items():
        recorder.scalar(f"{SPLIT}_{name}", measure.value)
    write_documents(out, facts, measures)
    write_confusion(out, images, before, after)
    write_predictions(out, inputs, images, before, after)
    return Outputs(measures=measures, facts=facts)


def licences(params: Params, inputs: Inputs, finetuned: FinetuneFacts) -> dict[str, str | None]:
    """Take the licences of the data and the model: as the params state them, else their stages."""
    data = manifest.read(inputs["ingest"], IngestFacts, verify=False).facts.licence
    return licence_check.resolve(params.verdict.licences, data=data, model=finetuned.licence)


def find_shipped(inputs: Inputs) -> ShippedTarget:
    """Read which target select chose, and its export."""
    choice = ChoiceDocument.read(inputs["select"] / CHOICE)
    folder, row = inputs.matrix("export")[choice.target], choice.row()
    if row.speedup is None:
        raise OurFault(f"{choice.target} was chosen, and its speed-up was never measured")
    facts = manifest.read(folder, ExportFacts, verify=False).facts
    return ShippedTarget(folder, facts, row.speedup, row.over)


def score(
    sides: tuple[Params, Params], inputs: Inputs, shipped: ShippedTarget, images: Images
) -> tuple[Floats, Floats]:
    """Return the test logits of the float model (ONNX Runtime) and of the shipped file.

    `sides` are the params with the float model's side of image and with the shipped file's, which
    `images` have.
    """
    large, small = sides
    same = large.preprocess.side_px == small.preprocess.side_px
    seen = images if same else split_reader.images(inputs, large, SPLIT)
    ort = plugins.resolve("runtimes", "ort", where="the float model")
    runtime = plugins.resolve("runtimes", shipped.facts.runtime, where="targets")
    float_model = ort.open(inputs["finetune"] / "model.onnx", threads=1)
    chosen = runtime.open(shipped.folder / str(shipped.facts.entry), threads=1)
    return predict_logits(float_model, large, seen.pixels), predict_logits(
        chosen, small, images.pixels
    )


def asked_bounds(params: Params, inputs: Inputs) -> AskedBounds:
    """Return every bound that the params hold the file to, and whether the run is a smoke run."""
    asked, verdict = params.compress.budget, params.verdict
    bounds = AskedBounds(
        budget=AskedBudget.model_validate(asked.recorded()),
        limits=tuple(AskedLimit.model_validate(one.model_dump()) for one in verdict.limits),
        class_drop_max=verdict.class_drop_max,
        licences_allow=None if verdict.licences.allow is None else tuple(verdict.licences.allow),
    )
    ingest = manifest.read(inputs["ingest"], IngestFacts, verify=False).facts
    if ingest.limited_from is None:
        return bounds
    return bounds.model_copy(update={"smoke_images": (ingest.rows, ingest.limited_from)})


def count_float_model(params: Params, inputs: Inputs) -> ModelCounts:
    """Count the float model's bytes, parameters and multiply-accumulates."""
    model, size = inputs["finetune"] / "model.onnx", params.preprocess.side_px
    cost = onnx_cost.cost(model, shape=(params.preprocess.channels, size, size))
    return ModelCounts(size_bytes=model.stat().st_size, parameters=cost.parameters, macs=cost.macs)


def count_shipped(facts: ExportFacts) -> ModelCounts:
    """Return the same of the shipped file, as export counted it."""
    if not (facts.parameters and facts.macs and facts.size_bytes):
        raise OurFault(f"{facts.target} was chosen, and its file was never counted")
    return ModelCounts(size_bytes=facts.size_bytes, parameters=facts.parameters, macs=facts.macs)


def write_documents(out: Path, facts: VerdictFacts, measures: Mapping[str, Measure]) -> None:
    """Write verdict.json with everything, and metrics.json with bare numbers for DVC."""
    VerdictDocument.of(facts, measures).write(out / VERDICT)
    plain: dict[str, object] = {"passed": facts.passed, "target": facts.target}
    plain |= {name: measure.value for name, measure in measures.items() if "." not in name}
    manifest.write_json(out / "metrics.json", plain)


def write_confusion(out: Path, images: Images, before: Floats, after: Floats) -> None:
    """Write confusion.json: the shipped file's counts, and the float model's beside them."""
    counts = {
        name: accuracy_statistics.confusion(logits, images.labels).tolist()
        for name, logits in (("counts", after), ("float", before))
    }
    doc = ConfusionDocument.model_validate({"classes": images.classes, **counts}, strict=False)
    doc.write(out / "confusion.json")


def record_verdict(
    inputs: Inputs, out: Path, shipped: ShippedTarget, images: Images, bounds: AskedBounds
) -> RowsLedger:
    """Add this verdict to the project's ledger; keep its lines on these images in the artefact.

    Raises ProjectError for a ledger that cannot be read.
    """
    file = verdict_ledger.place(inputs.project)
    rows = verdict_ledger.digest_rows(image_digests(inputs, images))
    float_model = manifest.sha256_file(inputs["finetune"] / "model.onnx")
    files = manifest.list_files(shipped.folder)
    judged = {"float": float_model, **{f.path: f.sha256 for f in files}}
    line = verdict_ledger.LedgerLine(
        kind="verdict",
        rows=rows,
        images=len(images.ids),
        model=verdict_ledger.digest_json(judged),
        bounds=verdict_ledger.digest_json(bounds.to_object()),
    )
    verdict_ledger.append(file, line)
    lines = verdict_ledger.of_rows(verdict_ledger.read(file), rows)
    text = "".join(json.dumps(one.to_object(), sort_keys=True) + "\n" for one in lines)
    manifest.write_text(out / verdict_ledger.NAME, text)
    return verdict_ledger.count(lines, rows)


def image_digests(inputs: Inputs, images: Images) -> list[str]:
    """Read the sha256 of each image's bytes, in the order of `images`."""
    table = pq.read_table(inputs["ingest"] / image_table.IMAGES, columns=["row", "sha256"])
    known = dict(zip(table["row"].to_pylist(), table["sha256"].to_pylist(), strict=True))
    return [str(known[row]) for row in images.ids]


def write_predictions(
    out: Path, inputs: Inputs, images: Images, before: Floats, after: Floats
) -> None:
    """Write predictions.parquet: what both models say of each test image, and its digest."""
    columns: dict[str, object] = {  # arrow takes each column's own type
        "row": images.ids,
        "sha256": image_digests(inputs, images),
        "label": [images.classes[class_index] for class_index in images.labels],
    }
    for prefix, logits in (("", after), ("float_", before)):
        chances = accuracy_statistics.probabilities(logits)
        columns[f"{prefix}predicted"] = [
            images.classes[class_index] for class_index in chances.argmax(axis=1)
        ]
        columns[f"{prefix}probability"] = chances.max(axis=1)
        columns[f"{prefix}probabilities"] = pa.FixedSizeListArray.from_arrays(
            chances.astype(np.float32).ravel(), chances.shape[1]
        )
    pq.write_table(pa.table(columns), out / "predictions.parquet")
