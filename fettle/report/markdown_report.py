"""Markdown report: for a CI job's summary and for a Prefect artifact."""

from __future__ import annotations

import html
from collections.abc import Sequence

from fettle.report import verdict_table
from fettle.report.report_values import Facts, TargetFacts
from fettle.report.terminal_report import headline, quality_rows, ratio_rows, standing, target_row


def markdown(facts: Facts) -> str:
    """Write the result for a CI job summary or a Prefect artifact (GitHub's Markdown)."""
    lines = [f"### {plain(facts.name)}", "", plain(headline(facts)), ""]
    if facts.targets:
        lines += rows(
            ("target", "accuracy, validation [95 %]", "p50 ms", "speed-up [95 %]", "size", ""),
            [target_row(t) for t in verdict_table.timed(facts)],
        )
        if verdict_table.untimed(facts):
            lines += rows(
                ("not timed here", "same top-1", "drop, points [95 %]", "size", "evidence", ""),
                [_untimed(t) for t in verdict_table.untimed(facts)],
            )
        lines += [
            f"- {plain(t.name)} {standing(t)}: {plain(t.reason)}"
            for t in facts.targets
            if t.reason and t.verdict != "ship"
        ] + [""]
    if facts.quality:
        heads = (f"quality on {facts.quality.main.split}, %", "float", "shipped", "drop", "n")
        lines += rows(heads, quality_rows(facts))
    ratios = ratio_rows(facts)
    lines += rows([name for name, _ in ratios], [[value for _, value in ratios]])
    return "\n".join(lines).rstrip() + "\n"


def _untimed(target: TargetFacts) -> tuple[str, ...]:
    row = verdict_table.row(target)
    return (row.target, row.parity, row.drop, row.size, row.evidence, row.verdict)


def rows(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines, the first column to the left, and an empty one."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    cells = [heads, rule, *body]
    return [f"| {' | '.join(plain(cell) for cell in row)} |" for row in cells] + [""]


def plain(text: str) -> str:
    """Keep names and reasons from being read as Markdown or HTML."""
    for sign in ("\\", "|", "*", "`", "]("):
        text = text.replace(sign, "\\" + sign)
    return html.escape(text, quote=False).replace("\n", " ")
