"""Search chart: every recipe that was tried, the drop it cost over the objective it reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fettle.facts.search_document import SearchDocument
from fettle.facts.typed_document import Options
from fettle.report import svg
from fettle.report.tradeoff_chart import front, stairs

WIDTH_PX, HEIGHT_PX = 1080, 420
# Drops beyond so many budgets lie on the upper edge, with their size beside them: a trial that
# collapsed would press all others into a line.
SHOWN_BUDGETS = 4.0
STYLES = {
    "chosen": f"fill:{svg.colour(1)}",
    "kept": f"fill:{svg.colour(0)}",
    "beaten": f"fill:{svg.colour(0)};fill-opacity:0.35",
    "refused": f"fill:none;stroke:{svg.colour(5)};stroke-width:1.5",
}


@dataclass(frozen=True, slots=True)
class Dot:
    """A trial that gave a model."""

    number: int
    value: float
    drop: float
    verdict: str
    tip: str


def dots(doc: SearchDocument) -> list[Dot]:
    """Take the trials that have figures."""
    return [
        Dot(
            trial.number,
            trial.value,
            trial.drop,
            trial.verdict,
            f"trial {trial.number}, {spoken(trial.recipe)}: {trial.value:.4g} {doc.unit}, "
            f"drop {100 * trial.drop:+.2f} points; {trial.verdict}: {trial.reason}",
        )
        for trial in doc.trials
        if trial.value is not None and trial.drop is not None
    ]


def spoken(recipe: Sequence[Options]) -> str:
    """Say a recipe in few words: "prune 0.5 → distil"; the empty one is the float model."""
    return " → ".join(_step(step) for step in recipe) or "float model"


def _step(step: Options) -> str:
    named = [str(v) for k, v in step.items() if k != "use" and isinstance(v, int | float)]
    return f"{step['use']} {named[0]}" if named else str(step["use"])


def draw(doc: SearchDocument, *, label: str) -> str | None:
    """Draw the trials, the front of those within none beats, and the line of the budget."""
    found = dots(doc)
    if not found:
        return None
    budget = doc.budget.drop_max
    low = min([one.drop for one in found] + [0.0])
    top = min(max([one.drop for one in found] + [budget]), SHOWN_BUDGETS * budget)
    room = max(0.08 * (top - low), 0.002)
    x_low, x_high = svg.log_range([one.value for one in found])
    x = svg.Scale(low=x_low, high=x_high, start=58, end=WIDTH_PX - 16, log=True)
    y = svg.Scale(low=low - room, high=top + room, start=HEIGHT_PX - 46, end=34)
    body = svg.axes(
        x, y, x_label=f"{doc.objective.minimise} ({doc.unit}, log scale)",
        y_label="drop on validation, points (lower is better)",
        x_format=lambda v: f"{v:g}", y_format=lambda v: f"{100 * v:g}",
    )  # fmt: skip
    line = f"stroke:{svg.colour(1)};stroke-width:1.2;stroke-dasharray:6 4"
    body.append(svg.line(x.start, y(budget), x.end, y(budget), style=line))
    body.append(
        svg.text(x.end, y(budget) - 6, "budget", anchor="end", style=f"fill:{svg.colour(1)}")
    )
    steps = front([(one.value, -one.drop) for one in found if one.drop <= top])
    path = [(x(value), y(-gain)) for value, gain in stairs(steps)]
    body.append(
        svg.polyline(path, style="stroke:currentColor;stroke-opacity:0.35;stroke-dasharray:4 3")
    )
    for trial in sorted(found, key=lambda trial: trial.verdict == "chosen"):
        radius = 7 if trial.verdict == "chosen" else 5
        style = STYLES.get(trial.verdict, STYLES["beaten"])
        at_x, at_y = x(trial.value), y(min(trial.drop, top))
        body.append(svg.dot(at_x, at_y, radius, style=style, title=trial.tip))
        if trial.verdict in ("chosen", "kept"):
            said = "chosen" if trial.verdict == "chosen" else str(trial.number)
            body.append(svg.text(at_x + 9, at_y - 7, said, size_px=11))
    beyond: dict[int, list[float]] = {}  # by place: models of one size may collapse alike
    for one in found:
        if one.drop > top:
            beyond.setdefault(round(x(one.value)), []).append(100 * one.drop)
    for at_x, drops in beyond.items():
        said = "↑ " + ", ".join(f"{drop:.0f}" for drop in sorted(drops))
        body.append(svg.text(at_x + 9, y(top) - 7, said, size_px=11))
    return svg.picture(WIDTH_PX, HEIGHT_PX, label=label, body=body)
