"""Search section of the page and the JSON: its trials, its end, the recipe found."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from fettle.report import number_format
from fettle.report.report_schema import Facts, Json
from fettle.report.search_chart import spoken


def view(doc: Json | None) -> Json | None:
    """Say each trial in a row; None without a search."""
    if doc is None:
        return None
    return {
        "why": doc["why"],
        "unit": doc["unit"],
        "priced_by": doc.get("priced_by", number_format.NOT_MEASURED),
        "evaluations": doc["evaluations"],
        "evaluations_max": doc["evaluations_max"],
        "truncated": doc["truncated"],
        "goal_met": doc["goal_met"],
        "predictor": [f"{name}: {_said(value)}" for name, value in predictor(doc).items()],
        "rows": [_row(trial) for trial in doc["trials"]],
    }


def _row(trial: Json) -> Json:
    known = trial.get("value") is not None
    return {
        "number": trial["number"],
        "recipe": spoken(trial["recipe"]),
        "verdict": trial["verdict"],
        "badge": {"chosen": "pass", "kept": "badge", "beaten": "badge"}.get(
            trial["verdict"], "fail"
        ),
        "reason": trial["reason"],
        "value": f"{trial['value']:.4g}" if known else number_format.DASH,
        "drop": f"{100 * trial['drop']:+.1f}" if known else number_format.DASH,
        "foreseen": _points(trial.get("foreseen_drop")),
        "bought": trial.get("bought", number_format.DASH),
        "cost": trial.get("cost", number_format.DASH),
    }


def _points(drop: float | None) -> str:
    return number_format.DASH if drop is None else f"{100 * drop:+.1f}"


def predictor(doc: Json) -> dict[str, Any]:  # Any: JSON numbers
    """Return the surrogate's own errors, flat."""
    return {str(name): value for name, value in (doc.get("predictor") or {}).items()}


def _said(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


def recipe_yaml(facts: Facts) -> str | None:
    """Write the recipe that made the model, as params.yaml would hold it; None without one."""
    found = facts.details.get("recipe")
    if not found:
        return None
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = None
    yaml.width = 200
    first = [{"use": step["use"], **step} for step in found]  # JSON has sorted the keys
    yaml.dump({"recipe": first}, text)
    return text.getvalue().rstrip()
