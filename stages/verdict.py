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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fettle import manifest, plugins
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.errors import OurFault
from fettle.evaluation import (
    accuracy_budget,
    accuracy_statistics,
    licence_check,
    per_class_accuracy,
)
from fettle.evaluation.batch_scoring import predict_logits
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.select_facts import CHOICE, ChoiceDocument
from fettle.facts.verdict_facts import (
    VERDICT,
    BudgetStatus,
    ConfusionDocument,
    VerdictDocument,
    VerdictFacts,
)
from fettle.hardware import onnx_cost
from fettle.measure import Measure
from fettle.params import Params
from fettle.params_schema import Budget, Limit
from fettle.preprocessing import Floats
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

READS = ("ingest", "validate", "finetune", "export@*", "select")
SECTIONS = ("preprocess", "compress.budget", "verdict", "targets")
MEASURES = False

SPLIT = "test"


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
    images = split_reader.images(inputs, params, SPLIT)
    recorder.progress(0.1, f"scoring {len(images.ids)} test images, once")
    before, after = score(params, inputs, shipped, images)
    measures = compare(before, after, images) | size_and_speed_ratios(params, inputs, shipped)
    asked, stated = params.compress.budget, licences(params, inputs)
    judgement = accuracy_budget.judge(
        asked.metric,
        before,
        after,
        images.labels,
        drop_max=asked.drop_max,
        confidence=asked.confidence,
    )
    drops = per_class_accuracy.recall_drops(before, after, images.labels, images.classes)
    measures |= {f"recall_drop.{name}": measure for name, measure in drops.items()}
    checks = [
        check_budget(measures, asked, judgement),
        *((False, text) for text in shipped.over),
        *check_limits(measures, params.verdict.limits),
        *check_classes(drops, params.verdict.class_drop_max),
        *licence_check.check(params.verdict.licences, stated),
    ]
    facts = VerdictFacts(
        passed=all(holds for holds, _ in checks),
        reasons=tuple(text for _, text in checks),
        failed=tuple(text for holds, text in checks if not holds),
        target=shipped.facts.target,
        metric=asked.metric,
        budget=BudgetStatus(
            status=judgement.status, bound=judgement.bound, n_needed=judgement.n_needed
        ),
        split=SPLIT,
        classes=tuple(images.classes),
        n=len(images.ids),
        licences=stated,
    )
    for name, measure in measures.items():
        recorder.scalar(f"{SPLIT}_{name}", measure.value)
    write_documents(out, facts, measures)
    write_confusion(out, images, before, after)
    write_predictions(out, images, before, after)
    return Outputs(measures=measures, facts=facts)


def licences(params: Params, inputs: Inputs) -> dict[str, str | None]:
    """Take the licences of the data and the model: as the params state them, else their stages."""
    data = manifest.read(inputs["ingest"], IngestFacts, verify=False).facts.licence
    model = manifest.read(inputs["finetune"], FinetuneFacts, verify=False).facts.licence
    return licence_check.resolve(params.verdict.licences, data=data, model=model)


def find_shipped(inputs: Inputs) -> ShippedTarget:
    """Read which target select chose, and its export."""
    choice = ChoiceDocument.read(inputs["select"] / CHOICE)
    folder, row = inputs.matrix("export")[choice.target], choice.row()
    if row.speedup is None:
        raise OurFault(f"{choice.target} was chosen, and its speed-up was never measured")
    facts = manifest.read(folder, ExportFacts, verify=False).facts
    return ShippedTarget(folder, facts, row.speedup, row.over)


def score(
    params: Params, inputs: Inputs, shipped: ShippedTarget, images: Images
) -> tuple[Floats, Floats]:
    """Return the test logits of the float model (ONNX Runtime) and of the shipped file."""
    ort = plugins.resolve("runtimes", "ort", where="the float model")
    runtime = plugins.resolve("runtimes", shipped.facts.runtime, where="targets")
    float_model = ort.open(inputs["finetune"] / "model.onnx", threads=1)
    chosen = runtime.open(shipped.folder / str(shipped.facts.entry), threads=1)
    return predict_logits(float_model, params, images.pixels), predict_logits(
        chosen, params, images.pixels
    )


def compare(before: Floats, after: Floats, images: Images) -> dict[str, Measure]:
    """Compare every metric of both models, and the paired drops."""
    labels = images.labels
    first = accuracy_statistics.summary(before, labels)
    recalls = {
        "recall": accuracy_statistics.recall_measures(after, labels, images.classes),
        "float_recall": accuracy_statistics.recall_measures(before, labels, images.classes),
    }
    return {
        **accuracy_statistics.summary(after, labels),
        **{f"float_{name}": measure for name, measure in first.items()},
        **{f"{name}_drop": accuracy_statistics.drop(name, before, after, labels) for name in first},
        **{
            f"{kind}.{name}": measure
            for kind, per_class in recalls.items()
            for name, measure in per_class.items()
        },
        "churn": accuracy_statistics.churn(before, after),
    }


def size_and_speed_ratios(
    params: Params, inputs: Inputs, shipped: ShippedTarget
) -> dict[str, Measure]:
    """Compare the shipped file with the float model: how many times smaller and faster it is."""
    model, size = inputs["finetune"] / "model.onnx", params.preprocess.side_px
    cost = onnx_cost.cost(model, shape=(params.preprocess.channels, size, size))
    facts = shipped.facts
    if not (facts.parameters and facts.macs and facts.size_bytes):
        raise OurFault(f"{facts.target} was chosen, and its file was never counted")
    sizes = {
        "params_ratio": cost.parameters / facts.parameters,
        "macs_ratio": cost.macs / facts.macs,
        "size_ratio": model.stat().st_size / facts.size_bytes,
    }
    counted = {name: Measure(value=value, unit="x", n=1) for name, value in sizes.items()}
    return counted | {"latency_ratio": shipped.speedup}


def check_budget(
    measures: Mapping[str, Measure], asked: Budget, judgement: accuracy_budget.BudgetJudgement
) -> tuple[bool, str]:
    """Budget check: whether the drop's upper bound lies within the budget, in a sentence."""
    drop, met = measures[f"{asked.metric}_drop"], judgement.status == "met"
    text = (
        f"{asked.metric} drops by {_show(drop)} on {SPLIT}; the {asked.confidence:.0%} upper bound "
        f"{judgement.bound:.4f} is {'within' if met else 'above'} the budget of {asked.drop_max:g} "
        "(compress.budget)"
    )
    if judgement.status == "undecided":
        needs = (
            f"about {judgement.n_needed:,} test images would show whether it holds"
            if judgement.n_needed
            else "no number of test images would show it to hold"
        )
        text += f": undecidable with n = {drop.n:,}, {needs}"
    return met, text


def check_limits(
    measures: Mapping[str, Measure], limits: Sequence[Limit]
) -> list[tuple[bool, str]]:
    """Limit check on the test figures: whether it holds, and a sentence."""
    checks = []
    for index, limit in enumerate(limits):
        taken = measures[limit.metric]
        bounds = (
            ("at least", limit.min, limit.min is None or taken.value >= limit.min),
            ("at most", limit.max, limit.max is None or taken.value <= limit.max),
        )
        for side, bound, holds in bounds:
            if bound is not None:
                sentence = (
                    f"{limit.metric} is {_show(taken)} on {SPLIT}, "
                    f"{'' if holds else 'not '}{side} {bound:g} (verdict.limits[{index}])"
                )
                checks.append((holds, sentence))
    return checks


def check_classes(drops: Mapping[str, Measure], drop_max: float | None) -> list[tuple[bool, str]]:
    """Class check, the recall each may lose: one sentence, about those that lost more."""
    if drop_max is None:
        return []
    rule = f"{drop_max:g} (verdict.class_drop_max)"
    gone = per_class_accuracy.classes_over_limit(drops, drop_max)
    if not gone:
        return [(True, f"no class is shown to lose more recall on {SPLIT} than {rule}")]
    shown = ", ".join(f"'{name}' {_show(drops[name])}" for name in gone)
    return [(False, f"recall drops on {SPLIT} by more than {rule}: {shown}")]


def _show(measure: Measure) -> str:
    if measure.low is None or measure.high is None:
        return f"{measure.value:.4f} (n = {measure.n})"
    return f"{measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f}, n = {measure.n})"


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


def write_predictions(out: Path, images: Images, before: Floats, after: Floats) -> None:
    """Write predictions.parquet: what both models say of each test image."""
    columns: dict[str, object] = {  # arrow takes each column's own type
        "row": images.ids,
        "label": [images.classes[class_index] for class_index in images.labels],
    }
    for prefix, logits in (("", after), ("float_", before)):
        chances = accuracy_statistics.probabilities(logits)
        columns[f"{prefix}predicted"] = [
            images.classes[class_index] for class_index in chances.argmax(axis=1)
        ]
        columns[f"{prefix}probability"] = chances.max(axis=1)
        columns[f"{prefix}probabilities"] = pa.array(
            chances.tolist(), type=pa.list_(pa.float32(), chances.shape[1])
        )
    pq.write_table(pa.table(columns), out / "predictions.parquet")
