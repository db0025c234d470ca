"""Render the facts as one self-contained HTML file: no script, no network, light and dark."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fettle import dataset, manifest
from fettle.report import console, evaluated, evidence, ladder, pictures, sections, trials, words
from fettle.report.figures import draw
from fettle.report.interface import Facts, Json
from fettle.report.markdown import markdown

__all__ = ["markdown", "render"]

HERE = Path(__file__).parent
QUARANTINE_ROWS = 50
CONTENTS = (
    ("targets", "Targets"),
    ("quality", "Quality"),
    ("mistakes", "Worst mistakes"),
    ("compression", "Compression"),
    ("training", "Training"),
    ("data", "Data"),
    ("validation", "Validation"),
    ("run", "The run"),
    ("next", "Reproduce, serve"),
    ("missing", "Not measured"),
)
CHARTS = (
    "accuracy_latency",
    "accuracy_size",
    "confusion",
    "layer_channels",
    "layer_params",
    "loss",
    "accuracy",
    "stages",
    "search",
    "sensitivity",
    "weights",
    "operators",
    "classes",
    "reliability",
)


def render(facts: Facts, out: Path) -> None:
    """Write the page to `out`, in one atomic step.

    Reads the images it shows from facts.project; everything else stands in `facts`.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "count": words.count,
            "percent": words.percent,
            "percent_interval": words.percent_interval,
            "times_interval": words.times_interval,
            "milliseconds": words.milliseconds,
            "size": words.size,
            "moment": words.moment,
            "standing": console.standing,
            "notes": evaluated.notes,
        }
    )
    manifest.write_text(out, environment.get_template("page.html").render(view(facts)))


def view(facts: Facts) -> Json:
    """Prepare what the template shows; only `css` and `charts` are markup, the rest is escaped."""
    drawn = draw(facts)
    return {
        "facts": facts,
        "css": Markup((HERE / "page.css").read_text()),
        "charts": {name: Markup(drawn[name]) if name in drawn else None for name in CHARTS},
        "dash": words.DASH,
        "headline": console.headline(facts),
        "state": console.state(facts),
        "contents": [entry for entry in CONTENTS if entry[0] != "missing" or facts.gaps],
        "tiles": sections.tiles(facts),
        "quality_rows": console.quality_rows(facts),
        "recalls": sections.recalls(facts),
        "confused": sections.confused(facts.details["confusion"]),
        "mistakes": _mistakes(facts),
        "phases": sections.phases(facts),
        "steps": sections.steps(facts),
        "rungs": ladder.rungs(facts.targets),
        "search": trials.view(facts.details["search"]),
        "recipe_yaml": trials.recipe_yaml(facts),
        "profile": facts.details["profile"],
        "flips": evidence.flips(facts),
        "layers": facts.details["layers"] or [],
        "checks": sections.checks(facts.details["checks"]),
        "lineage": sections.lineage(facts),
        "environment": sections.environment(facts),
        "recipes": sections.recipes(facts),
        **_data(facts),
    }


def _data(facts: Facts) -> Json:
    """Read samples, counts of each split and the quarantine, when the data passed validation."""
    ingest, validate = _artifact(facts, "ingest"), _artifact(facts, "validate")
    if not (validate / dataset.ROWS).is_file() or not (ingest / dataset.IMAGES).is_file():
        return {"samples": [], "samples_left": 0, "quarantined": []}
    samples = pictures.samples(ingest, validate)
    counts = pictures.counts(ingest, validate)
    rows = [
        {"label": label, "images": samples[label], "counts": counts[label]} for label in samples
    ]
    return {
        "samples": rows,
        "samples_left": len(counts) - len(rows),
        "quarantined": pictures.quarantine(validate, QUARANTINE_ROWS),
    }


def _mistakes(facts: Facts) -> Json:
    """Read the wrong answers on test; `wrong` is None when verdict left no predictions."""
    verdict, ingest = _artifact(facts, "verdict"), _artifact(facts, "ingest")
    if not (verdict / pictures.PREDICTIONS).is_file():
        return {"wrong": None}
    wrong, images = pictures.mistakes(verdict)
    return {
        "wrong": len(wrong),
        "images": images,
        "flipped": sum(one.flipped for one in wrong),
        "shown": pictures.show(wrong[: pictures.MISTAKES], ingest),
    }


def _artifact(facts: Facts, stage: str) -> Path:
    return facts.project / "artifacts" / stage
