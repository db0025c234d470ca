"""What compression did, in pictures and rows: from what stages left, and quietly without it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_project import build, profiled, searched, sensitivity
from fake_tree import Tree
from safetensors.numpy import load_file

from fettle.facts.compress_facts import SensitivityDocument
from fettle.facts.evaluate_facts import KernelTimes
from fettle.facts.search_document import SearchDocument
from fettle.report import (
    chart_data,
    compression_charts,
    html_page,
    page_sections,
    report_facts,
    report_figures,
    search_chart,
    search_section,
)
from fettle.report.chart_data import Bin
from fettle.report.report_json import to_json
from fettle.report.report_values import Facts


@pytest.fixture(scope="module")
def known(finished: Path) -> Facts:
    return report_facts.collect(finished)


def typed(doc: dict[str, Any]) -> SearchDocument:
    return SearchDocument.from_json(doc, Path("search.json"))


def test_every_picture_is_drawn(known: Facts) -> None:
    names = {"search", "sensitivity", "weights", "operators", "classes", "reliability"}
    assert names <= set(report_figures.draw(known))


def test_a_recipe_that_was_given_leaves_its_pictures_out(tmp_path: Path) -> None:
    tree: Tree = build(tmp_path)
    measured = tree.facts("evaluate@x86_ort_int8")
    for address in ("compress", "evaluate@x86_ort_int8"):
        for path in tree.folder(address).iterdir():
            path.unlink()
    tree.seal("evaluate@x86_ort_int8", measured, {})
    left = report_facts.collect(tmp_path)
    assert {"search", "sensitivity", "weights", "operators"}.isdisjoint(report_figures.draw(left))
    html_page.render(left, tmp_path / "index.html")
    said = to_json(left)
    assert (said["search"], said["recipe"], said["profile"]) == (None, None, None)


def test_the_json_has_the_recipe_the_search_and_the_profile(known: Facts) -> None:
    said = json.loads(json.dumps(to_json(known)))
    assert said["recipe"] == searched()["recipe"]
    assert said["search"]["evaluations"] == 12
    assert said["profile"]["after"]["int8_share"] == pytest.approx(0.887)


def test_the_json_has_the_recipe_that_was_given(tree: Tree) -> None:
    given = {**tree.facts("compress"), "recipe": [{"use": "prune", "keep_fraction": 0.5}]}
    del given["search"]
    (tree.folder("compress") / "search.json").unlink()
    tree.seal("compress", given, tree.measures("compress"))
    said = to_json(report_facts.collect(tree.root))
    assert said["recipe"] == [{"use": "prune", "keep_fraction": 0.5}]
    assert said["search"] is None


def test_the_recipe_can_be_pasted_into_params_yaml(known: Facts) -> None:
    assert search_section.recipe_yaml(known) == (
        "recipe:\n- {use: prune, keep_fraction: 0.27}\n- {use: distil, epochs: 16}"
    )


def test_every_trial_has_a_row_with_its_reason() -> None:
    view = search_section.view(typed(searched()))
    assert view is not None
    assert len(view["rows"]) == 13
    last = view["rows"][-1]
    assert (last["value"], last["verdict"]) == ("–", "refused")  # noqa: RUF001  the dash of words
    assert last["reason"] == "no layer is <large> enough"
    assert search_section.view(None) is None


def test_the_search_marks_the_chosen_one_and_the_budget() -> None:
    drawn = search_chart.draw(typed(searched()), label="a search")
    assert drawn is not None
    assert drawn.count("<circle") == 12  # one trial gave no model
    assert ">budget</text>" in drawn
    assert ">chosen</text>" in drawn
    assert "fill:none;stroke" in drawn


def test_a_collapsed_trial_does_not_press_the_others_into_a_line() -> None:
    doc = searched()
    doc["trials"][11]["drop"] = 0.8
    drawn = search_chart.draw(typed(doc), label="a search")
    assert drawn is not None
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    heights = [y for _, y in sorted((float(x), float(y)) for x, y in dots)]  # fastest first
    assert heights[0] == min(heights) > 0  # on the upper edge, with its drop beside it
    assert ">↑ 80</text>" in drawn
    assert max(heights) - sorted(heights)[1] > 0.5 * search_chart.HEIGHT_PX


def test_a_search_in_which_nothing_gave_a_model_has_no_picture() -> None:
    doc = {**searched(), "trials": searched()["trials"][-1:]}
    assert search_chart.draw(typed(doc), label="") is None


def test_a_step_says_what_it_bought_and_cost(known: Facts) -> None:
    first, prune, distil = page_sections.steps(known)
    assert first["bought"] == "–"  # noqa: RUF001  the dash of words
    assert prune["bought"] == "3.85x fewer parameters, 3.75x fewer multiply-adds"
    assert prune["cost"] == "-1.9"
    assert (distil["bought"], distil["cost"]) == ("–", "+1.5")  # noqa: RUF001  as above


def test_histograms_count_all_weights_and_name_what_is_gone(known: Facts) -> None:
    found = chart_data.histograms(known)
    assert [one.layer for one in found] == [f"blocks.{at}.conv" for at in range(12)]
    assert all(sum(one.before) == pytest.approx(1) for one in found)
    assert found[-1].after is None
    held = load_file(known.project / "artifacts" / "finetune" / "model.safetensors")
    assert found[0].counts[0] == held["blocks.0.conv.weight"].size
    assert "removed" in compression_charts.histograms(found, label="")


def test_answers_that_changed_are_counted(known: Facts) -> None:
    assert chart_data.flips(known) == {"images": 3, "lost": 1, "won": 0, "swapped": 0}


def test_confidence_is_binned() -> None:
    confidence = np.array([0.05, 0.55, 0.58, 1.0])
    right = np.array([False, True, False, True])
    assert chart_data._bins(confidence, right) == [
        Bin(0.05, 0.0, 1),
        Bin(pytest.approx(0.565), 0.5, 2),
        Bin(1.0, 1.0, 1),
    ]


def test_the_operators_of_both_files_share_one_scale() -> None:
    before, after = (
        KernelTimes.from_json(profiled(scale, int8=int8), Path("profile.json"))
        for scale, int8 in ((1.0, False), (0.5, True))
    )
    drawn = compression_charts.operators(before, after, names=("a", "b"), label="")
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"[^>]*><title>', drawn)]
    assert len(widths) == 6  # convolution, addition and other, twice
    assert sum(widths[:3]) == pytest.approx(2 * sum(widths[3:]), rel=0.02)


def test_kernels_of_one_kind_of_work_share_a_colour() -> None:
    assert compression_charts._family("QLinearConv") == compression_charts._family("Convolution")
    assert compression_charts._family("Softmax") == "other"


def test_the_most_sensitive_come_first() -> None:
    doc = SensitivityDocument.from_json(sensitivity(), Path("sensitivity.json"))
    drawn = compression_charts.sensitivity(doc, label="")
    names = re.findall(r'text-anchor="end"[^>]*>([^<]+)<', drawn)
    assert names[:2] == ["blocks.11", "blocks.10"]
    assert "blocks.4 removed" in names


def test_classes_are_sorted_by_what_they_lost() -> None:
    drawn = compression_charts.classes(
        [("same", 0.9, 0.9), ("lost", 0.9, 0.8), ("won", 0.8, 0.9)], label=""
    )
    assert re.findall(r'text-anchor="end"[^>]*>([^<]+)<', drawn) == ["lost", "same", "won"]
    assert ">-10.0</text>" in drawn


def test_the_budget_is_a_line_in_accuracy_against_latency(known: Facts) -> None:
    assert ">budget</text>" in report_figures.draw(known)["accuracy_latency"]
