"""Decide which images are fit to learn from: set bad rows aside, or refuse the data.

Reads:   ingest.
Writes:  rows.parquet (row: the ids that go on), quarantine.parquet (row, rule, reason),
         validation.json and validation.html (what Great Expectations found), data_docs/ when
         validate.data_docs is on (Great Expectations' own pages; they need the network to look
         as meant).
Params:  validate; compress.objective, compress.budget, compress.constraints and targets are only
         checked against the row counts, before any training: no output depends on them.
Facts:   fettle/facts/validate_facts.py, with validation.json
Refuses: more rows to set aside than validate.quarantine_max_fraction; fewer than two classes; a
         class with fewer than validate.class_images_min usable images or none in some split; too
         many rows without a label; a goal that no model can meet
         (fettle/evaluation/goal_feasibility.py).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pyarrow as pa

from fettle import manifest
from fettle.data import image_table
from fettle.data.checks import CheckLimits
from fettle.data.validation_page import document, page, to_show
from fettle.data.validation_runner import Examination, examine, read_frame
from fettle.evaluation import goal_feasibility
from fettle.facts.validate_facts import ValidateFacts
from fettle.measure import Measure
from fettle.params import Params
from fettle.params_scope import DECIDED, settle
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

READS = ("ingest",)
SECTIONS = (
    "validate",
    "compress.objective",
    "compress.budget",
    "compress.constraints",
    "targets",
)
MEASURES = False

PASSED = pa.schema([("row", pa.string())])
ASIDE = pa.schema([("row", pa.string()), ("rule", pa.string()), ("reason", pa.string())])


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[ValidateFacts]:
    """Run every check, then write what goes on, what does not, and why."""
    section = params.validate_
    limits = CheckLimits(
        labels=None if section.labels is None else tuple(section.labels),
        class_images_min=section.class_images_min,
        class_imbalance_max=section.class_imbalance_max,
        size_px_min=section.size_px_min,
        size_px_max=section.size_px_max,
        null_max_fraction=section.null_max_fraction,
    )
    images = inputs["ingest"] / image_table.IMAGES
    frame = read_frame(images)
    recorder.progress(0.1, f"{len(frame):,} images to check")
    result = examine(
        frame,
        limits,
        quarantine_max_fraction=section.quarantine_max_fraction,
        docs=out / "data_docs" if section.data_docs else None,
    )
    write_rows(out, result)
    doc = document(result, limits, len(frame))
    doc.write(out / "validation.json")
    shown = image_table.read_images(images, to_show(result.lines))
    html = page(doc, result.lines, images=shown, css=stylesheet())
    manifest.write_text(out / "validation.html", html)
    recorder.file(out / "validation.html")
    recorder.note("validation", f"{result.quarantined} of {len(frame)} images set aside")
    tested = sum(splits["test"] for splits in result.classes.values())
    least_class = min(splits["test"] for splits in result.classes.values())
    decided = goal_feasibility.decide_drop(params.compress.budget, tested, recorder)
    goal_feasibility.check(
        settle(params, decided),
        classes=len(result.classes),
        tested=tested,
        least_class=least_class,
        recorder=recorder,
    )
    facts = doc.summary()
    if decided:
        facts = facts.model_copy(update={DECIDED: decided})
    return Outputs(measures=measures(result, len(frame)), facts=facts)


def write_rows(out: Path, result: Examination) -> None:
    """Write the ids that go on, and the rows set aside with their reasons."""
    lines = [{"row": line.row, "rule": line.rule, "reason": line.reason} for line in result.lines]
    passed = pa.table({"row": result.kept}, schema=PASSED)
    image_table.write(out / image_table.ROWS, PASSED, [passed])
    image_table.write(
        out / image_table.QUARANTINE, ASIDE, [pa.Table.from_pylist(lines, schema=ASIDE)]
    )


def stylesheet() -> str:
    """Read the stylesheet that all pages share."""
    return resources.files("fettle.report").joinpath("page.css").read_text("utf-8")


def measures(result: Examination, rows: int) -> dict[str, Measure]:
    """Count shares over all rows: a census, so no interval."""
    sizes = [sum(splits.values()) for splits in result.classes.values()]
    missing = result.by_rule.get("label_missing", 0)
    return {
        "quarantined_fraction": Measure(value=result.quarantined / rows, unit="1", n=rows),
        "unlabelled_fraction": Measure(value=missing / rows, unit="1", n=rows),
        "class_imbalance": Measure(value=max(sizes) / min(sizes), unit="1", n=len(sizes)),
    }
