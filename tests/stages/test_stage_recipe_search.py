from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sample_facts
from compress_stage import Fatal, Killed, Made, make, make_inputs

from fettle import manifest
from fettle.data import image_table
from fettle.hardware import operator_cost_table
from fettle.recipes import recipe_evaluator, recipe_search
from fettle.recipes.search.trial import key
from fettle.release import verdict_ledger
from fettle.stage_contract import Inputs

TESTED = 900
GOAL = (
    "compress.recipe=auto",
    "compress.objective={minimise: macs, target: null}",
    "compress.budget={metric: accuracy, drop_max: 0.04, confidence: 0.95}",
    "compress.search={evaluations_max: 4, wall_clock_max_s: 600, trial_epochs: 1, final_epochs: 2}",
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """The project of compress_stage.py, its test images unreadable: nothing may look at them."""
    found = make_inputs(tmp_path_factory.mktemp("project"), epochs=8)
    table = found["ingest"] / image_table.IMAGES
    rows = pq.read_table(table).to_pylist()
    spoilt = [{**row, "bytes": b"spoilt"} if row["split"] == "test" else row for row in rows]
    image_table.write(
        table, image_table.SCHEMA, [image_table.pa.Table.from_pylist(spoilt, image_table.SCHEMA)]
    )
    classes = {name: {"train": 32, "validation": 16, "test": TESTED // 3} for name in "abc"}
    manifest.write(
        found["validate"],
        "validate",
        inputs={},
        measures={},
        facts=sample_facts.of("validate", {"classes": classes}),
    )
    operator_cost_table.write(found["latency_table"] / operator_cost_table.NAME, {}, threads=1)
    return found


@pytest.fixture(scope="module")
def made(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(inputs, tmp_path_factory.mktemp("made") / "compress", *GOAL)


def test_it_finds_a_smaller_model_inside_the_budget_without_a_test_image(made: Made) -> None:
    found, measures = made.json("search.json"), made.outputs.measures
    assert found["goal_met"] is True
    assert found["recipe"]
    assert measures["macs_after"].value < 0.6 * measures["macs_before"].value
    best = found["trials"][found["best"]]
    assert best["verdict"] == "chosen"
    assert best["macs"] == measures["macs_after"].value == best["value"]
    assert best["chance"] >= found["chance_min"]
    assert made.outputs.facts.search.evaluations == found["evaluations"] <= 4


def test_every_trial_has_its_recipe_verdict_and_reason(made: Made) -> None:
    found = made.json("search.json")
    assert len(found["trials"]) == found["evaluations"] + 1
    for index, one in enumerate(found["trials"]):
        assert one["number"] == index
        assert one["verdict"] in ("chosen", "kept", "beaten", "refused")
        assert one["reason"]
    later = found["trials"][1]
    assert later["bought"].endswith("x less (MACs)")
    assert later["cost"].endswith(" points on validation")
    assert len(found["curve"]) == len(found["trials"])
    values = [one["value"] for one in found["curve"]]
    assert values == sorted(values, reverse=True)


def test_the_recipe_found_can_be_pinned_and_gives_the_same_model(
    inputs: Inputs, made: Made, tmp_path: Path
) -> None:
    text = made.outputs.facts.search.recipe_yaml
    assert text.startswith("recipe:\n- {use: ")
    recipe = json.dumps(made.json("search.json")["recipe"])
    pinned = make(inputs, tmp_path / "pinned", f"compress.recipe={recipe}")
    ours, theirs = made.bytes(), pinned.bytes()
    ours.pop("search.json")
    assert ours == theirs


def test_a_search_killed_in_a_trial_repeats_none_and_ends_with_the_same_bytes(
    inputs: Inputs, made: Made, tmp_path: Path
) -> None:
    found = made.json("search.json")
    texts = [text for _, text in made.recorder.progresses]
    out = tmp_path / "out"
    with pytest.raises(Killed):
        make(inputs, out, *GOAL, recorder=Fatal(texts[-1]))
    journal = out.parent / "out-s" / recipe_search.JOURNAL
    kept = [json.loads(line) for line in journal.read_text().splitlines()]
    done = [event["recipe"] for event in kept if event["kind"] == "result"]
    assert done == [key(one["recipe"]) for one in found["trials"][1:-1]]
    again = make(inputs, out, *GOAL)
    assert again.bytes() == made.bytes()
    last = texts[-1].split(":")[0]
    assert all(text.startswith(last) for _, text in again.recorder.progresses)


def test_limits_that_nothing_can_meet_end_with_the_nearest_miss(
    inputs: Inputs, tmp_path: Path
) -> None:
    short = "compress.search={evaluations_max: 1, trial_epochs: 0}"
    found = make(inputs, tmp_path / "out", *GOAL, short, "compress.constraints={params_max: 10}")
    assert (found.out / "model.onnx").is_file()
    search = found.outputs.facts.search
    assert search.goal_met is False
    assert search.why.startswith("goal not met: the nearest model is ")
    assert search.why.endswith(
        " times a limit of compress.constraints; stopped at its bound of 1 evaluations"
    )


def test_aimed_at_the_front_it_still_answers_with_a_model_inside_the_budget(
    inputs: Inputs, tmp_path: Path
) -> None:
    front = "compress.search={aim: front, evaluations_max: 4, trial_epochs: 1, final_epochs: 2}"
    found = make(inputs, tmp_path / "out", *GOAL, front).json("search.json")
    assert found["goal_met"] is True
    assert found["trials"][found["best"]]["chance"] >= found["chance_min"]
    assert found["aim"] == "front"


def test_a_clock_that_runs_out_at_once_hands_the_float_model_on_and_says_truncated(
    inputs: Inputs, tmp_path: Path
) -> None:
    short = "compress.search={evaluations_max: 4, wall_clock_max_s: 0.001}"
    found = make(inputs, tmp_path / "out", *GOAL, short)
    document = found.json("search.json")
    assert document["truncated"] is True
    assert document["recipe"] == []
    assert "truncated by search.wall_clock_max_s after 0 evaluations" in document["why"]


def test_proposals_are_thinned_from_mild_to_harsh() -> None:
    offered: list[dict[str, Any]] = [{"n": n} for n in range(6)]
    assert [one["n"] for one in recipe_evaluator.evenly_spaced(offered, 3)] == [0, 2, 5]
    assert recipe_evaluator.evenly_spaced(offered[:2], 3) == offered[:2]


@pytest.mark.parametrize(
    ("on", "targets", "wanted"),
    [
        (None, ["x86_ort_fp32", "x86_ort_int8"], 1),
        (None, ["x86_ort_fp32", "x86_ort_w16"], 2),
        ("x86_ort_w4", ["x86_ort_w4", "x86_ort_int8"], 0.5),
        ("x86_ort_fp32", ["x86_ort_fp32", "x86_ort_w4"], 4),
    ],
)
def test_a_weight_is_priced_as_the_smallest_file_that_may_ship_holds_it(
    on: str | None, targets: list[str], wanted: float
) -> None:
    assert recipe_search.bytes_per_weight(on, targets) == wanted


def test_the_recipe_found_is_noted_in_the_project_s_ledger_as_found_on_this_data(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FETTLE_ROOT", str(tmp_path))
    found = make(inputs, tmp_path / "out", *GOAL, "compress.search.evaluations_max=1")
    recipe = found.json("search.json")["recipe"]
    lines = verdict_ledger.read(tmp_path / verdict_ledger.NAME)
    data = json.loads((inputs["ingest"] / "manifest.json").read_text())["facts"]["digest"]
    assert recipe
    assert verdict_ledger.found_by_search(lines, recipe, data)
    assert not verdict_ledger.found_by_search(lines, recipe, "0" * 64)
