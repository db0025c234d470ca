"""Show what validation found: a JSON document, and the same as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from typing import TYPE_CHECKING

from fettle.data.checks import CheckLimits, Failing
from fettle.data.expectations import ExpectationResult
from fettle.data.validation_runner import EXAMPLES, CheckResult, Examination
from fettle.facts.validate_facts import CheckedLimits, CheckReport, ValidationDocument

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_PX = 96
THUMBNAILS_PER_RULE = 6
LINES_SHOWN = 200  # the page stays light; quarantine.parquet has them all
SIZES_SHOWN = 8


def document(found: Examination, limits: CheckLimits, rows: int) -> ValidationDocument:
    """Reduce Great Expectations' results to what matters: no clock, no ids."""
    return ValidationDocument(
        passed=True,  # what does not pass raises, and leaves no artefact
        rows=rows,
        kept=len(found.kept),
        quarantined=found.quarantined,
        by_rule=found.by_rule,
        classes=found.classes,
        overview=found.overview,
        limits=CheckedLimits(
            labels=limits.labels,
            class_images_min=limits.class_images_min,
            class_imbalance_max=limits.class_imbalance_max,
            size_px_min=limits.size_px_min,
            size_px_max=limits.size_px_max,
            null_max_fraction=limits.null_max_fraction,
        ),
        great_expectations=metadata.version("great_expectations"),
        checks=tuple(_check(outcome) for outcome in found.outcomes),
    )


def _check(outcome: ExpectationResult) -> CheckReport:
    rule = outcome.rule
    return CheckReport(
        name=rule.name,
        rule=rule.says,
        passed=outcome.passed,
        observed=outcome.observed,
        failing=rule.failing.value,
        table=rule.table.value,
        expectation=rule.expectation,
        arguments=dict(rule.arguments),
        elements=outcome.elements,
        broken=len(outcome.bad),
        examples=outcome.bad[:EXAMPLES],
        fix=rule.fix,
    )


def to_show(lines: Sequence[CheckResult]) -> list[str]:
    """Choose the rows whose image the page shows: the first few of each rule."""
    shown: dict[str, list[str]] = {}
    for line in lines:
        rows = shown.setdefault(line.rule, [])
        if len(rows) < THUMBNAILS_PER_RULE:
            rows.append(line.row)
    return sorted({row for rows in shown.values() for row in rows})


def page(
    doc: ValidationDocument,
    lines: Sequence[CheckResult],
    *,
    images: Mapping[str, bytes],
    css: str,
) -> str:
    """Render `document`'s result; `images` are encoded images of rows set aside, by row."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files("fettle.data").joinpath("validation.html").read_text("utf-8")
    shown: dict[str, list[dict[str, str]]] = {}
    reasons = {(line.rule, line.row): line.reason for line in lines}
    for (rule, row), reason in reasons.items():
        uri = thumbnail(images[row]) if row in images else None
        if uri is not None and len(shown.setdefault(rule, [])) < THUMBNAILS_PER_RULE:
            shown[rule].append({"row": row, "reason": reason, "uri": uri})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        doc=doc,
        css=css,
        lines=lines[:LINES_SHOWN],
        lines_total=len(lines),
        thumbnails=shown,
        largest=max((sum(splits.values()) for splits in doc.classes.values()), default=1) or 1,
        sizes=dict(list(doc.overview["size"].items())[:SIZES_SHOWN]),
        sizes_total=len(doc.overview["size"]),
        badges={True: "pass", False: "warn"},
        words={
            Failing.QUARANTINE: "set aside",
            Failing.WARN: "warning",
            Failing.REFUSE: "refused",
        },
    )


def thumbnail(encoded: bytes) -> str | None:
    """Return a small PNG as a data URI, or None when the image cannot be drawn."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded)) as image:
                small = _small(image)
    except Exception:  # a row set aside may hold anything; it is then shown without a picture
        return None
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _small(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image as Images

    if image.mode.startswith(("I", "F")):  # no stated scale: stretch what there is
        samples = np.asarray(image, dtype=np.float64)
        span = max(float(samples.max() - samples.min()), 1e-9)
        image = Images.fromarray(np.uint8((samples - samples.min()) * (255 / span)))
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return small
