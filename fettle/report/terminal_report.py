"""Terminal report: the result in one sentence, and in tables that fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from fettle.measure import Measure
from fettle.report import number_format, verdict_table
from fettle.report.report_values import RECALL, Facts, Metric, TargetFacts

NARROW = 80
TITLE = "Targets on validation images: accuracy in %, p50 latency in ms, [95 % interval]"
UNTIMED_TITLE = "Targets that are not timed here: same winner in %, drop in points [95 % interval]"
STYLES = {"chosen": "bold green", "ship": "green", "refused": "red"}


def state(facts: Facts) -> str:
    """Say in two or three words how far the run came."""
    if facts.verdict.passed is None:
        return "unfinished"
    if not facts.verdict.passed:
        return "gate not passed"
    return "released" if facts.release.bento else "gate passed"


def headline(facts: Facts) -> str:
    """Say in one sentence whether the run ended in a release, and what it is worth."""
    verdict = facts.verdict
    if verdict.passed is None:
        if facts.failures:
            first = facts.failures[0]
            return f"The run stopped at {first.stage}: {first.text}"
        return "The run is not finished: no verdict yet."
    if not verdict.passed:
        return f"The gate did not pass: {'; '.join(verdict.reasons)}."
    ratios = facts.compression
    named = (
        (ratios.params_ratio, "fewer parameters", "more parameters"),
        (ratios.size_ratio, "smaller", "larger"),
        (ratios.latency_ratio, "faster", "slower"),
    )
    gains = [
        _gain(m.value, *than) for m, *than in named if m and number_format.ratio(m.value) != "1.00"
    ]
    gained = f": {', '.join(gains)} than the float model" if gains else ""
    return f"Ships {verdict.chosen}{gained}{_cost(facts)}."


def _gain(ratio: float, less: str, more: str) -> str:
    """Say "9.61x fewer", or, where the ratio is below one, "1.20x more"."""
    return (
        f"{number_format.ratio(ratio)}x {less}"
        if ratio > 1
        else f"{number_format.ratio(1 / ratio)}x {more}"
    )


def _cost(facts: Facts) -> str:
    main = facts.quality.main if facts.quality else None
    if main is None or main.drop is None:
        return ""
    drop, name = main.drop, number_format.metric(main.name)
    points = f"{abs(100 * drop.value):.1f}"
    verb = "loses" if drop.value > 0 else "gains"
    said = f"keeps its {name}" if points == "0.0" else f"{verb} {points} points of {name}"
    if drop.low is None or drop.high is None:
        return f"; it {said} on {main.split}"
    ends = f"{100 * drop.low:+.1f} to {100 * drop.high:+.1f}"
    return f"; it {said} on {main.split} (95 %: {ends}, n = {number_format.count(drop.n)})"


def standing(target: TargetFacts) -> str:
    """Return the word for a target's row: chosen, ship or refused."""
    return "chosen" if target.chosen and target.verdict == "ship" else target.verdict


def tables(facts: Facts) -> list[Table]:
    """Make the tables that end a run: the targets, then quality, then the ratios.

    They fit 80 columns without cutting a cell as long as target names have at most 18 characters.
    """
    found = []
    if verdict_table.timed(facts):
        found.append(_targets(facts))
    if verdict_table.untimed(facts):
        found.append(_untimed(facts))
    if facts.quality:
        found.append(_quality(facts))
    if facts.details.steps:
        found.append(_steps(facts))
    return [*found, _ratios(facts)]


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=f"\n{title}",  # a blank line before each table
        caption=caption,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),  # with the box's own blank: two spaces between columns
    )


def target_row(target: TargetFacts) -> tuple[str, str, str, str, str, str]:
    """Return a target's cells: name, accuracy, p50 ms, speed-up, size, standing."""
    p50 = (target.latency_ms or {}).get("p50")
    return (
        target.name,
        number_format.percent_interval(target.accuracy),
        number_format.milliseconds(p50.value) if p50 else number_format.DASH,
        number_format.times_interval(target.speedup),
        number_format.DASH if target.size_bytes is None else number_format.size(target.size_bytes),
        standing(target),
    )


def _targets(facts: Facts) -> Table:
    timed = verdict_table.timed(facts)
    notes = [f"{t.name}: {t.reason}" for t in timed if t.verdict != "ship" and t.reason]
    heads = ("target", "accuracy", "p50", "speed-up", "size", "verdict")
    rows = [target_row(target) for target in timed]
    table = _columns(_table(TITLE, "\n".join(notes) or None), heads, rows)
    for row in rows:
        table.add_row(*row[:-1], Text(row[-1], style=STYLES[row[-1]]))
    return table


def _untimed(facts: Facts) -> Table:
    """Show what an emulator's answers or a compiler can say of hardware that is not here."""
    targets = verdict_table.untimed(facts)
    heads = ("target", "size", "top-1", "drop", "evidence", "verdict")
    rows = [
        (row.target, row.size, row.parity.removesuffix(" %"), row.drop, row.evidence, row.verdict)
        for row in map(verdict_table.row, targets)
    ]
    notes = "\n".join(map(verdict_table.note, targets))
    table = _columns(_table(UNTIMED_TITLE, notes), heads, rows)
    for row in rows:
        table.add_row(*row[:-1], Text(row[-1], style=STYLES.get(row[-1], "yellow")))
    return table


def _columns(table: Table, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Add the columns: text to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    # two spaces between columns where they fit, one where long cells need the room
    if sum(widths) + 2 * (len(heads) - 1) > NARROW:
        table.padding = 0
    for head in heads:
        left = head in ("target", "metric", "verdict", "step", "evidence")
        table.add_column(head, justify="left" if left else "right", no_wrap=True)
    return table


def _quality(facts: Facts) -> Table:
    split = facts.quality.main.split if facts.quality else ""
    heads = ("metric", "float", "shipped", "drop", "n")
    rows = [(name.replace("calibration", "calib."), *cells) for name, *cells in quality_rows(facts)]
    title = f"Quality on {split}, per cent and points [95 %]"
    table = _columns(_table(title), heads, rows)
    for row in rows:
        table.add_row(*row)
    return table


def quality_rows(facts: Facts) -> list[tuple[str, str, str, str, str]]:
    """Return the cells of the metrics over all classes, the budget's first."""
    if facts.quality is None:
        return []
    budget = facts.quality.metric
    shown = [m for m in facts.quality.metrics.values() if not m.name.startswith(RECALL)]
    order = sorted(shown, key=lambda m: (m.name != budget, m.name))
    return [_quality_row(metric) for metric in order]


def _quality_row(metric: Metric) -> tuple[str, str, str, str, str]:
    known = metric.compressed or metric.float_
    return (
        number_format.metric(metric.name),
        number_format.percent_interval(metric.float_),
        number_format.percent_interval(metric.compressed),
        number_format.points_interval(metric.drop),
        number_format.count(known.n) if known else number_format.DASH,
    )


def _steps(facts: Facts) -> Table:
    """Say what each step left, and how the search that found them ended."""
    rows = [
        (
            step.use,
            number_format.DASH if step.params is None else number_format.count(step.params),
            number_format.DASH if step.macs is None else number_format.count(step.macs),
            number_format.DASH
            if step.validation_accuracy is None
            else number_format.percent_bare(step.validation_accuracy),
        )
        for step in facts.details.steps
    ]
    searched = facts.details.search
    tried = (
        f"{searched.evaluations} recipes tried: {searched.why}. {searched.tally.sentence()}"
        if searched
        else None
    )
    heads = ("step", "parameters", "multiply-adds", "accuracy")
    table = _columns(_table("The recipe, accuracy in % on validation", tried), heads, rows)
    for row in rows:
        table.add_row(*row)
    return table


def ratio_rows(facts: Facts) -> list[tuple[str, str]]:
    """Return (what, how many times less) of the shipped file against the float model."""
    ratios = facts.compression
    named: list[tuple[str, Measure | None]] = [
        ("parameters", ratios.params_ratio),
        ("multiply-adds", ratios.macs_ratio),
        ("file size", ratios.size_ratio),
        ("latency", ratios.latency_ratio),
    ]
    return [
        (name, number_format.times_interval(m) if m else number_format.NOT_MEASURED)
        for name, m in named
    ]


def _ratios(facts: Facts) -> Table:
    rows = ratio_rows(facts)
    table = _table("The shipped file against the float model, times less")
    for name, _ in rows:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*(value for _, value in rows))
    return table
