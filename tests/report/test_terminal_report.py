"""Hold what a run ends with: tables that fit a terminal, one sentence, and Markdown for CI."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from fake_project import TARGETS
from fake_tree import Tree
from rich.console import Console

from fettle.measure import Measure
from fettle.report import report_facts, terminal_report
from fettle.report.markdown_report import markdown
from fettle.report.report_values import Facts


@pytest.fixture(scope="module")
def known(finished: Path) -> Facts:
    return report_facts.collect(finished)


def printed(known: Facts, width: int) -> list[str]:
    out = io.StringIO()
    screen = Console(file=out, width=width, force_terminal=False)
    for table in terminal_report.tables(known):
        screen.print(table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_no_cell_is_cut_or_wrapped(known: Facts, width: int) -> None:
    lines = printed(known, width)
    assert max(len(line) for line in lines) <= width
    assert not [line for line in lines if "…" in line]
    for target in known.targets:
        row = next(line for line in lines if line.startswith(f"{target.name} "))
        for cell in terminal_report.target_row(target):
            assert cell in row


def test_longer_target_names_take_the_room_between_the_columns(known: Facts) -> None:
    first = replace(known.targets[0], name="arm_cortex_a_openvino")
    wide = replace(known, targets=(first, *known.targets[1:]))
    lines = printed(wide, 80)
    assert max(len(line) for line in lines) <= 80
    row = next(line for line in lines if line.startswith("arm_cortex_a_openvino "))
    assert all(cell in row for cell in terminal_report.target_row(first))


def test_large_drops_and_counts_fit_too(known: Facts) -> None:
    assert known.quality is not None
    names = ("accuracy", "macro_f1", "worst_recall", "calibration_error")
    wide = Measure(value=0.506, unit="1", n=10_310, low=0.476, high=0.537)
    drop = Measure(value=-0.198, unit="1", n=10_310, low=-0.225, high=-0.172)
    metrics = {
        name: replace(known.quality.main, name=name, float_=wide, compressed=wide, drop=drop)
        for name in names
    }
    quality = replace(known.quality, metrics=metrics)
    lines = printed(replace(known, quality=quality), 80)
    assert "…" not in "\n".join(lines)
    cells = ["50.6", "[47.6,", "53.7]"] * 2 + ["-19.8", "[-22.5,", "-17.2]", "10,310"]
    for name in ("accuracy", "macro F1", "worst recall", "calib. error"):
        row = next(line for line in lines if line.startswith(name) and "[47.6" in line)
        assert row.removeprefix(name).split() == cells


def test_a_refused_target_gives_its_reason_below_the_table(known: Facts) -> None:
    text = "\n".join(printed(known, 120))
    assert "x86_openvino_fp32: neither faster nor smaller than x86_ort_fp32" in text


def test_the_row_of_a_target_that_was_not_measured_has_dashes(tree: Tree) -> None:
    row = {"target": TARGETS[0], "verdict": "refused", "evidence": "not measured", "reason": "no"}
    row |= {"size_bytes": None, "parity": None, "latency_ms": None}
    tree.seal(f"evaluate@{TARGETS[0]}", row)
    found = report_facts.collect(tree.root).targets[0]
    assert terminal_report.target_row(found) == (TARGETS[0], "–", "–", "–", "–", "refused")  # noqa: RUF001  the dash


def test_quality_lists_metrics_but_not_each_class(known: Facts) -> None:
    assert terminal_report.quality_rows(known) == [
        ("accuracy", "99.7 [99.0, 99.9]", "99.4 [98.7, 99.8]", "+0.2 [-0.3, +0.8]", "899"),
        ("macro F1", "99.7", "99.4 [98.0, 99.8]", "+0.2", "899"),
    ]


def test_the_sentence_names_what_ships_what_is_gained_and_what_it_costs(known: Facts) -> None:
    assert terminal_report.headline(known) == (
        "Ships x86_ort_int8: 9.61x fewer parameters, 31.2x smaller, 6.77x faster than the float "
        "model; it loses 0.2 points of accuracy on test (95 %: -0.3 to +0.8, n = 899)."
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-0.004, "it gains 0.4 points of accuracy on test"),
        (0.0, "it keeps its accuracy on test"),
        (0.0004, "it keeps its accuracy on test"),
    ],
)
def test_the_sentence_tells_a_gain_from_a_loss(known: Facts, value: float, said: str) -> None:
    assert known.quality is not None
    drop = Measure(value=value, unit="1", n=899)
    main = replace(known.quality.main, drop=drop)
    quality = replace(known.quality, metrics={"accuracy": main})
    assert terminal_report.headline(replace(known, quality=quality)).endswith(f"; {said}.")


def test_the_sentence_of_a_gate_that_did_not_pass_gives_the_reasons(known: Facts) -> None:
    verdict = replace(known.verdict, passed=False, reasons=("accuracy drops by 0.03", "too slow"))
    said = terminal_report.headline(replace(known, verdict=verdict))
    assert said == "The gate did not pass: accuracy drops by 0.03; too slow."


def test_the_sentence_of_an_unfinished_run_says_where_it_stopped(tree: Tree) -> None:
    tree.drop("verdict")
    found = report_facts.collect(tree.root)
    assert terminal_report.headline(found) == "The run is not finished: no verdict yet."
    (tree.root / "records" / "verdict.error.json").write_text('{"kind": "ours", "text": "a bug."}')
    found = report_facts.collect(tree.root)
    assert terminal_report.headline(found) == "The run stopped at verdict: a bug."


def test_the_state_tells_a_passed_gate_from_a_release(known: Facts) -> None:
    assert terminal_report.state(known) == "released"
    assert terminal_report.state(replace(known, release=replace(known.release, bento=None))) == (
        "gate passed"
    )
    assert terminal_report.state(replace(known, verdict=replace(known.verdict, passed=False))) == (
        "gate not passed"
    )
    assert terminal_report.state(replace(known, verdict=replace(known.verdict, passed=None))) == (
        "unfinished"
    )


def test_tables_of_an_unfinished_run_still_print(tree: Tree) -> None:
    tree.drop("verdict", "select", *(f"evaluate@{name}" for name in TARGETS))
    lines = printed(report_facts.collect(tree.root), 80)
    assert lines[-1].count("not measured") == 4


def test_markdown_is_a_table_of_targets_a_table_of_quality_and_the_ratios(known: Facts) -> None:
    text = markdown(known)
    assert text.startswith("### digits\n\nShips x86_ort_int8: ")
    assert (
        "| x86_ort_int8 | 98.3 [95.0, 99.6] | 0.310 | 6.77 [6.45, 7.10] | 45.0 kB | chosen |"
        in (text.splitlines())
    )
    assert "- x86_openvino_fp32 refused: neither faster nor smaller than x86_ort_fp32" in text
    assert "| parameters | multiply-adds | file size | latency |" in text.splitlines()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == (2 + len(TARGETS)) + (2 + 2) + 3


def test_markdown_cannot_be_broken_out_of(known: Facts) -> None:
    reason = "a | b <script>alert(1)</script> `x` [y](z)\nnext"
    row = replace(known.targets[2], reason=reason)
    text = markdown(replace(known, targets=(*known.targets[:2], row)))
    assert "refused: a \\| b &lt;script&gt;alert(1)&lt;/script&gt; \\`x\\` [y\\](z) next" in text
