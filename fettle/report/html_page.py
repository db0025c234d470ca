"""HTML report, one self-contained file: no script, no network, light and dark."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fettle import manifest
from fettle.data import image_table
from fettle.report import (
    chart_data,
    number_format,
    page_sections,
    precision_ladder,
    search_section,
    target_rows,
    terminal_report,
    thumbnails,
    verdict_table,
)
from fettle.report.markdown_report import markdown
from fettle.report.report_figures import draw
from fettle.report.report_values import Facts

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
            "count": number_format.count,
            "percent": number_format.percent,
            "percent_interval": number_format.percent_interval,
            "times_interval": number_format.times_interval,
            "milliseconds": number_format.milliseconds,
            "size": number_format.size,
            "moment": number_format.moment,
            "standing": terminal_report.standing,
            "notes": target_rows.notes,
        }
    )
    manifest.write_text(out, environment.get_template("page.html").render(view(facts)))


def view(facts: Facts) -> dict[str, object]:
    """Prepare what the template shows; only `css` and `charts` are markup, the rest is escaped."""
    drawn = draw(facts)
    return {
        "facts": facts,
        "css": Markup((HERE / "page.css").read_text()),
        "charts": {name: Markup(drawn[name]) if name in drawn else None for name in CHARTS},
        "dash": number_format.DASH,
        "headline": terminal_report.headline(facts),
        "state": terminal_report.state(facts),
        "contents": [entry for entry in CONTENTS if entry[0] != "missing" or facts.gaps],
        "tiles": page_sections.tiles(facts),
        "quality_rows": terminal_report.quality_rows(facts),
        "recalls": page_sections.recalls(facts),
        "confused": page_sections.confused(facts.details.confusion),
        "mistakes": _mistakes(facts),
        "phases": page_sections.phases(facts),
        "steps": page_sections.steps(facts),
        "timed": verdict_table.timed(facts),
        "verdicts": verdict_table.rows(facts),
        "rungs": precision_ladder.rungs(facts.targets),
        "search": search_section.view(facts.details.search),
        "recipe_yaml": search_section.recipe_yaml(facts),
        "profile": facts.details.profile,
        "flips": chart_data.flips(facts),
        "layers": facts.details.layers.root if facts.details.layers else (),
        "checks": page_sections.checks(facts.details.checks),
        "lineage": page_sections.lineage(facts),
        "environment": page_sections.environment(facts),
        "recipes": page_sections.recipes(facts),
        **_data(facts),
    }


def _data(facts: Facts) -> dict[str, object]:
    """Read samples, counts of each split and the quarantine, when the data passed validation."""
    ingest, validate = _artifact(facts, "ingest"), _artifact(facts, "validate")
    if not (validate / image_table.ROWS).is_file() or not (ingest / image_table.IMAGES).is_file():
        return {"samples": [], "samples_left": 0, "quarantined": []}
    samples = thumbnails.samples(ingest, validate)
    counts = thumbnails.counts(ingest, validate)
    rows = [
        {"label": label, "images": samples[label], "counts": counts[label]} for label in samples
    ]
    return {
        "samples": rows,
        "samples_left": len(counts) - len(rows),
        "quarantined": thumbnails.quarantine(validate, QUARANTINE_ROWS),
    }


def _mistakes(facts: Facts) -> dict[str, object]:
    """Read the wrong answers on test; `wrong` is None when verdict left no predictions."""
    verdict, ingest = _artifact(facts, "verdict"), _artifact(facts, "ingest")
    if not (verdict / thumbnails.PREDICTIONS).is_file():
        return {"wrong": None}
    wrong, images = thumbnails.mistakes(verdict)
    return {
        "wrong": len(wrong),
        "images": images,
        "flipped": sum(error.flipped for error in wrong),
        "shown": thumbnails.show(wrong[: thumbnails.MISTAKES], ingest),
    }


def _artifact(facts: Facts, stage: str) -> Path:
    return facts.project / "artifacts" / stage
