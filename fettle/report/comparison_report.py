"""Comparison report: two releases side by side, as Markdown for a comment or text to read."""

from __future__ import annotations

from collections.abc import Sequence

from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.manifest import SHORT, Manifest
from fettle.measure import Measure
from fettle.params_schema import METRICS
from fettle.release.release_comparison import ComparedRelease, FlippedAnswer, ReleaseComparison
from fettle.report import markdown_report, number_format
from fettle.report.markdown_report import plain, rows
from fettle.report.report_values import Facts

FLIPS_SHOWN = 20
MARKER = "<!-- fettle-report -->"
Row = tuple[str, ...]


def headline(made: ReleaseComparison) -> str:
    """Say in one sentence what the later release does to the answers."""
    drop = made.measures["accuracy_drop"]
    count = number_format.count(made.rows)
    if drop.low is not None and drop.low > 0:
        found = "is less accurate than"
    elif drop.high is not None and drop.high < 0:
        found = "is more accurate than"
    else:
        found = "is not shown to differ in accuracy from"
    flips = len(made.flipped)
    answers = f"{flips} answer{'' if flips == 1 else 's'} of {count} changed"
    return f"{_name(made.after)} {found} {_name(made.before)}: {answers}"


def _name(side: ComparedRelease) -> str:
    return f"{side.stated.name}:{side.digest[:SHORT]}"


def quality_rows(made: ReleaseComparison) -> list[Row]:
    """Return a row a metric: before, after, the paired drop in points, n."""
    return [
        (
            number_format.metric(name),
            number_format.percent_interval(made.measures[f"float_{name}"]),
            number_format.percent_interval(made.measures[name]),
            number_format.points_interval(made.measures[f"{name}_drop"]),
            number_format.count(made.measures[name].n),
        )
        for name in METRICS
    ]


def target_rows(made: ReleaseComparison) -> list[Row]:
    """Return a row a target: its size and its p50, before and after; the shipped one is marked."""
    before, after = made.before.run.evaluated, made.after.run.evaluated
    return [
        (
            f"{name}{_marks(made, name)}",
            _size(before.get(name)),
            _size(after.get(name)),
            _latency(before.get(name)),
            _latency(after.get(name)),
        )
        for name in dict.fromkeys((*before, *after))
    ]


def _marks(made: ReleaseComparison, target: str) -> str:
    ships = [
        when
        for when, side in (("before", made.before), ("after", made.after))
        if side.stated.target == target
    ]
    return f" (ships {' and '.join(ships)})" if ships else ""


def _size(sealed: Manifest[EvaluateFacts] | None) -> str:
    if sealed is None or sealed.facts.size_bytes is None:
        return number_format.DASH
    return number_format.size(sealed.facts.size_bytes)


def _latency(sealed: Manifest[EvaluateFacts] | None) -> str:
    taken: Measure | None = sealed.measures.get("latency_p50_ms") if sealed else None
    if taken is None:
        return number_format.DASH
    shown = number_format.milliseconds(taken.value)
    if taken.low is None or taken.high is None:
        return shown
    low, high = (number_format.milliseconds(end) for end in (taken.low, taken.high))
    return f"{shown} [{low}, {high}]"


def notes(made: ReleaseComparison) -> list[str]:
    """Say what a reader must know of the figures."""
    found = [
        f"the gate {'passed' if side.stated.passed else 'did not pass'} for {_name(side)}"
        for side in (made.before, made.after)
    ]
    if made.before.stated.data.digest != made.after.stated.data.digest:
        digests = (side.stated.data.digest[:SHORT] for side in (made.before, made.after))
        found.append(f"the data changed: {' became '.join(digests)}")
    if made.unpaired:
        count = number_format.count(made.unpaired)
        found.append(
            f"{count} test rows that only one of them has, or labels otherwise, are left out"
        )
    found.append("latencies are of two runs, each with its own interval: compare them with care")
    return found


QUALITY = ("quality on test, %", "before", "after", "drop, points", "n")
TARGETS = ("target", "size before", "after", "p50 ms before", "after")
FLIPS = ("test row", "label", "before", "after", "")


def flip_rows(flipped: Sequence[FlippedAnswer]) -> list[Row]:
    """Return a row a flip, the first ones."""
    return [
        (flip.row, flip.label, flip.before, flip.after, flip.kind) for flip in flipped[:FLIPS_SHOWN]
    ]


def markdown(made: ReleaseComparison) -> str:
    """Return the comparison as GitHub's Markdown."""
    lines = [f"#### {plain(headline(made))}", ""]
    lines += rows(QUALITY, quality_rows(made))
    lines += rows(TARGETS, target_rows(made))
    lines += [f"- {plain(note)}" for note in notes(made)]
    if made.flipped:
        more = len(made.flipped) - FLIPS_SHOWN
        lines += ["", f"<details><summary>{len(made.flipped)} flipped answers</summary>", ""]
        lines += rows(FLIPS, flip_rows(made.flipped))
        lines += [f"{more} more: `fettle compare --json`", ""] * (more > 0) + ["</details>"]
    return "\n".join(lines).rstrip() + "\n"


def comment(facts: Facts, made: ReleaseComparison | None) -> str:
    """Return a run's report as one comment, with what it changes against another release.

    The first line, which no reader sees, is what a job finds its earlier comment by.
    """
    parts = [MARKER, markdown_report.markdown(facts), run_notes(facts)]
    if made is not None:
        parts.append(markdown(made))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def run_notes(facts: Facts) -> str:
    """Say what the gate found, what the cache saved, and what the run was made from."""
    found = [f"gate: {reason}" for reason in facts.verdict.reasons if facts.verdict.passed]
    cached = [stage for stage in facts.stages if stage.cached]
    if facts.stages:
        saved = sum(stage.made_seconds or 0.0 for stage in cached)
        line = f"cache: {len(cached)} of {len(facts.stages)} stages were there already"
        if saved:
            line += f", which took {number_format.seconds(saved)} when they were made"
        found.append(line)
    git = facts.release.git
    if git and git.commit:
        found.append(f"commit {git.commit[:SHORT]}{', with uncommitted changes' * git.dirty}")
    if facts.release.data:
        found.append(f"data {facts.release.data[:SHORT]}")
    if facts.release.bento:
        found.append(f"release {facts.release.bento}")
    return "\n".join(f"- {plain(one)}" for one in found)


def text(made: ReleaseComparison) -> str:
    """Return the comparison for a terminal."""
    parts = [headline(made), "", *_columns([QUALITY, *quality_rows(made)]), ""]
    parts += [*_columns([TARGETS, *target_rows(made)]), "", *(f"  {one}" for one in notes(made))]
    if made.flipped:
        parts += ["", *_columns([FLIPS, *flip_rows(made.flipped)])]
        if len(made.flipped) > FLIPS_SHOWN:
            parts.append(f"  {len(made.flipped) - FLIPS_SHOWN} more: --json lists all")
    return "\n".join(parts)


def _columns(table: Sequence[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
