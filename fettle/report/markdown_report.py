"""Markdown report: for a CI job's summary and for a Prefect artifact."""

from __future__ import annotations

import html
from collections.abc import Sequence

from fettle.report import verdict_table
from fettle.report.report_values import Facts, TargetFacts
from fettle.report.terminal_report import headline, quality_rows, ratio_rows, standing, target_row


def markdown(facts: Facts) -> str:
    """Write the result for a CI job summary or a Prefect artifact (GitHub's Markdown)."""
    lines = [f"### {_plain(facts.name)}", "", _plain(headline(facts)), ""]
    if facts.targets:
        lines += _rows(
            ("target", "accuracy, validation [95 %]", "p50 ms", "speed-up [95 %]", "size", ""),
            [target_row(t) for t in verdict_table.timed(facts)],
        )
        if verdict_table.untimed(facts):
            lines += _rows(
                ("not timed here", "same top-1", "drop, points [95 %]", "size", "evidence", ""),
                [_untimed(t) for t in verdict_table.untimed(facts)],
            )
        lines += [
            f"- {_plain(t.name)} {standing(t)}: {_plain(t.reason)}"
            for t in facts.targets
            if t.reason and t.verdict != "ship"
        ] + [""]
    if facts.quality:
        heads = (f"quality on {facts.quality.main.split}, %", "float", "shipped", "drop", "n")
        lines += _rows(heads, quality_rows(facts))
    ratios = ratio_rows(facts)
    lines += _rows([name for name, _ in ratios], [[value for _, value in ratios]])
    return "\n".join(lines).rstrip() + "\n"


def _untimed(target: TargetFacts) -> tuple[str, ...]:
    row = verdict_table.row(target)
    return (row.target, row.parity, row.drop, row.size, row.evidence, row.verdict)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    cells = [heads, rule, *rows]
    return [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in cells] + [""]


def _plain(text: str) -> str:
    """Keep names and reasons from being read as Markdown or HTML."""
    for sign in ("\\", "|", "*", "`", "]("):
        text = text.replace(sign, "\\" + sign)
    return html.escape(text, quote=False).replace("\n", " ")
