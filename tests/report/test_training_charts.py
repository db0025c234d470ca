"""Hold the drawing: scales, ticks, labels that do not cover each other, files that stand alone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from fettle.report import report_facts, svg, training_charts
from fettle.report.report_figures import draw, figures
from fettle.report.tradeoff_chart import Box, Point, front, place, tradeoff

NAMES = (
    "accuracy",
    "accuracy_latency",
    "accuracy_size",
    "classes",
    "confusion",
    "layer_channels",
    "layer_params",
    "loss",
    "operators",
    "reliability",
    "search",
    "sensitivity",
    "stages",
    "weights",
)


def test_the_figures_are_files_of_their_own(finished: Path, tmp_path: Path) -> None:
    paths = figures(report_facts.collect(finished), tmp_path)
    assert [path.name for path in paths] == [f"{name}.svg" for name in NAMES]
    for path in paths:
        root = ET.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "background:#ffffff" in root.attrib["style"]


def test_a_picture_without_its_facts_is_left_out(tree: object, finished: Path) -> None:
    known = report_facts.collect(finished)
    left = replace(
        known.details, curve=None, layers=None, confusion=None, search=None, profile=None
    )
    assert set(draw(replace(known, details=left))) == {
        "accuracy_latency",
        "accuracy_size",
        "classes",
        "reliability",
        "sensitivity",
        "stages",
    }


@pytest.mark.parametrize("name", NAMES)
def test_inline_pictures_are_well_formed_and_follow_the_page(finished: Path, name: str) -> None:
    picture = draw(report_facts.collect(finished))[name]
    root = ET.fromstring(picture)
    assert root.attrib["role"] == "img"
    assert "xmlns" not in picture
    texts = list(root.iter("text"))
    assert texts
    assert all(node.attrib["fill"] == "currentColor" for node in texts)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    for node in texts:
        assert 0 <= float(node.attrib["x"]) <= width
        assert 0 <= float(node.attrib["y"]) <= height


def test_ticks_are_round_and_inside() -> None:
    assert svg.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.ticks(0.948, 0.997) == [0.95, 0.96, 0.97, 0.98, 0.99]
    assert svg.ticks(3, 3) == [3]
    assert svg.log_ticks(0.15, 2.5) == [0.2, 0.5, 1, 2]
    assert svg.log_ticks(0.2, 0.9) == [0.2, 0.4, 0.6, 0.8]
    assert svg.log_ticks(10, 2e7) == [10, 100, 1e3, 1e4, 1e5, 1e6, 1e7]


@given(some.floats(1e-6, 1e6), some.floats(1e-6, 1e6))
@settings(max_examples=200, deadline=None)
def test_ticks_never_leave_their_range(low: float, span: float) -> None:
    found = svg.ticks(low, low + span)
    slack = 1e-6 * (low + span)
    assert all(low - slack <= tick <= low + span + slack for tick in found)
    assert len(found) <= 8


def test_a_scale_turns_the_ends_of_its_range_into_its_pixels() -> None:
    scale = svg.Scale(low=1, high=100, start=0, end=200, log=True)
    assert (scale(1), scale(10), scale(100)) == (0, 100, 200)
    assert scale(1000) == 200
    assert svg.Scale(low=5, high=5, start=0, end=10)(5) == 5


def test_the_front_keeps_what_none_beats_in_both() -> None:
    points = [(1.0, 0.9), (2.0, 0.95), (3.0, 0.94), (1.0, 0.8), (4.0, 0.99)]
    assert front(points) == [(1.0, 0.9), (2.0, 0.95), (4.0, 0.99)]


def boxes(starts: list[tuple[float, float]], labels: list[str]) -> list[Box]:
    return [
        Box(x, y - 12, x + svg.text_width_px(label), y + 4)
        for (x, y), label in zip(starts, labels, strict=True)
    ]


def test_labels_of_points_on_one_spot_do_not_cover_each_other() -> None:
    labels = ["x86_ort_fp32", "x86_ort_int8", "x86_openvino_fp32", "x86_openvino_int8", "float"]
    points = [(250.0, 150.0), (252.0, 151.0), (255.0, 150.0), (249.0, 149.0), (251.0, 152.0)]
    starts = place(points, labels, taken=[], within=Box(50, 30, 508, 330))
    for one, other in combinations(boxes(starts, labels), 2):
        assert one.overlap(other) == 0


def test_labels_stay_inside_the_plot_at_its_corners() -> None:
    area = Box(50, 30, 508, 330)
    points = [(52.0, 32.0), (506.0, 32.0), (52.0, 328.0), (506.0, 328.0)]
    starts = place(points, ["x86_openvino_int8"] * 4, taken=[], within=area)
    for box in boxes(starts, ["x86_openvino_int8"] * 4):
        assert area.left <= box.left
        assert box.right <= area.right
        assert area.top <= box.top
        assert box.bottom <= area.bottom


def test_one_point_alone_can_be_drawn() -> None:
    point = Point(name="a", kind="chosen", said="1 ms", x=(1.0, 1.0, 1.0), y=(1.0, 1.0, 1.0))
    picture = tradeoff([point], x_label="ms", x_format=str, label="one")
    assert ET.fromstring(picture).findall("circle")


def test_whiskers_span_the_intervals() -> None:
    point = Point(name="a", kind="target", said="", x=(2.0, 1.0, 4.0), y=(0.9, 0.8, 0.95))
    root = ET.fromstring(tradeoff([point], x_label="", x_format=str, label=""))
    whiskers = [
        n
        for n in root.findall("line")
        if "0.45" in n.attrib["style"] and "var" in n.attrib["style"]
    ]
    dot = root.find("circle")
    assert dot is not None
    across = next(n for n in whiskers if n.attrib["y1"] == n.attrib["y2"])
    assert float(across.attrib["x1"]) < float(dot.attrib["cx"]) < float(across.attrib["x2"])


def test_a_large_confusion_matrix_drops_its_figures_but_not_its_tips() -> None:
    names = [f"class {at:03d}" for at in range(50)]
    counts = [[9 if a == b else 1 if a == b + 1 else 0 for b in range(50)] for a in range(50)]
    root = ET.fromstring(training_charts.confusion(names, counts))
    assert len(root.findall(".//rect/title")) == 50 + 49
    written = {node.text for node in root.iter("text")}
    assert written < {*names, "predicted", "true"}
    assert len(written) < 40


def test_class_names_cannot_break_out_of_a_picture() -> None:
    root = ET.fromstring(training_charts.confusion(["<b>&\"'", "ok"], [[1, 2], [0, 3]]))
    assert "<b>&\"'" in [node.text for node in root.iter("text")]


def test_equal_curves_keep_their_labels_apart() -> None:
    same = [(1.0, 0.5), (2.0, 0.4)]
    picture = training_charts.curve(
        {"a": same, "b": same}, y_label="loss", y_percent=False, label="x"
    )
    root = ET.fromstring(picture)
    ends = [float(n.attrib["y"]) for n in root.iter("text") if n.text in ("a", "b")]
    assert abs(ends[0] - ends[1]) >= 15


def test_a_flat_curve_of_one_epoch_can_be_drawn() -> None:
    training_charts.curve({"a": [(1, 1.0)]}, y_label="accuracy", y_percent=True, label="x")


def test_a_cached_stage_is_pale_and_one_without_a_time_says_so() -> None:
    picture = training_charts.stage_times(
        [("a", 12.0, True), ("b", 75.2, False), ("c", None, None)]
    )
    assert "12 s, cached" in picture
    assert "1 min 15 s" in picture
    assert "not measured" in picture
    assert [float(o) for o in re.findall(r"fill-opacity:([\d.]+)\"/?></rect>", picture)] == [0.3, 1]
