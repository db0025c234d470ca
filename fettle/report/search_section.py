"""Search section of the page and the JSON: its trials, its end, the recipe found."""

from __future__ import annotations

import io
from typing import TypedDict

from ruamel.yaml import YAML

from fettle.facts.search_document import SearchDocument, TriedRecipe
from fettle.report import number_format
from fettle.report.report_values import Facts
from fettle.report.search_chart import spoken

BADGES = {"chosen": "pass", "kept": "badge", "beaten": "badge", "refused": "fail"}


class TrialRow(TypedDict):
    """One trial in words; `badge` is its colour."""

    number: int
    recipe: str
    verdict: str
    badge: str
    reason: str
    value: str
    drop: str
    foreseen: str
    bought: str


class SearchView(TypedDict):
    """What the page says of a search."""

    why: str
    unit: str
    priced_by: str
    evaluations: int
    evaluations_max: int
    truncated: bool
    goal_met: bool
    tally: str
    predictor: list[str]
    rows: list[TrialRow]


def view(doc: SearchDocument | None) -> SearchView | None:
    """Say each trial in a row; None without a search."""
    if doc is None:
        return None
    return SearchView(
        why=doc.why,
        unit=doc.unit,
        priced_by=doc.priced_by,
        evaluations=doc.evaluations,
        evaluations_max=doc.evaluations_max,
        truncated=doc.truncated,
        goal_met=doc.goal_met,
        tally=doc.tally.sentence(),
        predictor=[f"{name}: {value:.3g}" for name, value in doc.predictor.items()],
        rows=[_row(trial) for trial in doc.trials],
    )


def _row(trial: TriedRecipe) -> TrialRow:
    return TrialRow(
        number=trial.number,
        recipe=spoken(trial.recipe),
        verdict=trial.verdict,
        badge=BADGES[trial.verdict],
        reason=trial.reason,
        value=number_format.DASH if trial.value is None else f"{trial.value:.4g}",
        drop=_points(trial.drop),
        foreseen=_points(trial.foreseen_drop),
        bought=number_format.DASH if trial.bought is None else trial.bought,
    )


def _points(drop: float | None) -> str:
    return number_format.DASH if drop is None else f"{100 * drop:+.1f}"


def recipe_yaml(facts: Facts) -> str | None:
    """Write the recipe that made the model, as params.yaml would hold it; None without one."""
    found = facts.details.recipe
    if not found:
        return None
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = None
    yaml.width = 200
    first = [{"use": step["use"], **step} for step in found]  # JSON has sorted the keys
    yaml.dump({"recipe": first}, text)
    return text.getvalue().rstrip()
