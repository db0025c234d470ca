"""The verdict table: what is not timed here stands beside what is, and says what to run next."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fake_project
import jsonschema
from fake_project import m
from fake_tree import Tree
from rich.console import Console

from fettle.report import html_page, report_facts, report_json, terminal_report, verdict_table
from fettle.report.markdown_report import markdown
from tools import schema as generator

BOARD = "arm64_ort_int8"


def with_board(tree: Tree, **said: Any) -> None:
    """Leave an emulated target's artefacts, and the row that select made of it."""
    fake_project.evaluate(tree, BOARD, at=1)
    facts = tree.facts(f"evaluate@{BOARD}") | {"evidence": "emulated", "latency_ms": None}
    facts |= {"next_command": "fettle bench --on pi", "reason": "by parity", **said}
    kept = ("accuracy", "accuracy_drop", "churn", "baseline_accuracy")
    measures = {name: tree.measures(f"evaluate@{BOARD}")[name] for name in kept}
    tree.seal(f"evaluate@{BOARD}", facts, measures)
    choice = json.loads((tree.folder("select") / "choice.json").read_text())
    drop = m(0.004, -0.01, 0.02).to_dict()
    row = {"target": BOARD, "verdict": "inconclusive", "evidence": "emulated"}
    row |= {"reason": "too few images to tell", "size_bytes": 45_000, "value": None, "drop": drop}
    row |= {"chance": 0.9, "inside_budget": True, "accuracy": None, "speedup": None, "over": []}
    choice["candidates"] = [row]
    tree.seal("select", tree.facts("select"), choice=choice)


def test_what_select_judged_is_the_verdict_and_parity_alone_is_not(tree: Tree) -> None:
    with_board(tree)
    found = {t.name: t for t in report_facts.collect(tree.root).targets}[BOARD]
    assert (found.verdict, found.evidence) == ("inconclusive", "emulated")
    assert found.reason == "too few images to tell"


def test_the_terminal_shows_it_apart_within_80_columns(tree: Tree) -> None:
    with_board(tree)
    out = io.StringIO()
    screen = Console(file=out, width=80, force_terminal=False)
    for table in terminal_report.tables(report_facts.collect(tree.root)):
        screen.print(table)
    lines = out.getvalue().splitlines()
    row = next(line for line in lines if line.startswith(f"{BOARD} "))
    assert row.split()[-2:] == ["emulated", "inconclusive"]
    assert "…" not in out.getvalue()
    told = " ".join(out.getvalue().split())
    assert f"{BOARD}: too few images to tell; next: fettle bench --on pi" in told


def test_an_estimate_is_never_a_latency(tree: Tree) -> None:
    cycles = {"what": "cycles", "value": 1_250_000, "unit": "cycles", "tool": "Vela 4"}
    with_board(tree, evidence="estimated", estimates=[cycles], accelerator_share=1.0)
    facts = report_facts.collect(tree.root)
    row = next(row for row in verdict_table.rows(facts) if row.target == BOARD)
    assert row.speed == "estimate: cycles 1,250,000 (Vela 4)"
    assert row.accelerator == "100 %"
    document = json.loads(json.dumps(report_json.to_json(facts)))
    jsonschema.validate(document, json.loads(generator.FILE.read_text()))
    target = next(one for one in document["targets"] if one["target"] == BOARD)
    assert target["latency_ms"] is None
    assert target["estimates"] == [cycles]
    assert target["drop"]["value"] == 0.004
    assert target["next_command"] == "fettle bench --on pi"


def test_the_page_and_the_job_summary_have_the_row(tree: Tree, tmp_path: Path) -> None:
    with_board(tree)
    facts = report_facts.collect(tree.root)
    html_page.render(facts, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "Every target by one gate" in page
    assert "<code>fettle bench --on pi</code>" in page
    assert f"| {BOARD} | 99.5 % | +0.4 [-1.0, +2.0] | 45.0 kB | emulated | inconclusive |" in (
        markdown(facts)
    )


def test_without_such_a_target_the_report_is_as_it_was(finished: Path, tmp_path: Path) -> None:
    facts = report_facts.collect(finished)
    assert verdict_table.rows(facts) == []
    html_page.render(facts, tmp_path / "index.html")
    assert "Every target by one gate" not in (tmp_path / "index.html").read_text()
    assert "not timed here" not in markdown(facts)
