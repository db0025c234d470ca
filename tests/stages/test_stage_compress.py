"""The compress stage on a tiny network: what it writes, says, and repeats after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compress_stage import (
    CLASSES,
    COUNTS,
    SIDE,
    Fatal,
    Killed,
    Made,
    make,
    make_inputs,
    network,
    settings,
    validation_batch,
)
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from fettle.compress import compression_plan
from fettle.compress.compression_plan import Architecture, CompressionPlan
from fettle.data import split_reader
from fettle.errors import ModelError, ParamsError
from fettle.hardware.runtimes import ort
from fettle.models.families import small_cnn
from fettle.recipes import compression_context
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs
from stages import compress


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("project"), epochs=8)


@pytest.fixture(scope="module")
def made(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(inputs, tmp_path_factory.mktemp("made") / "compress")


def test_it_writes_the_files_of_the_hand_over(made: Made) -> None:
    assert sorted(made.bytes()) == [
        "layers.json",
        "model.onnx",
        "model.safetensors",
        "plan.json",
        "reference.safetensors",
        "sensitivity.json",
    ]


def test_a_fresh_architecture_with_plan_and_weights_answers_like_the_reference(
    inputs: Inputs, made: Made
) -> None:
    model = network()
    compression_plan.apply(model, CompressionPlan.from_json(made.json("plan.json")))
    model.load_state_dict(load_file(made.out / "model.safetensors"))
    reference = load_arrays(made.out / "reference.safetensors")
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(validation_batch(inputs)))
    np.testing.assert_allclose(logits.numpy(), reference["logits"], atol=1e-4)


def test_the_onnx_answers_like_the_reference(inputs: Inputs, made: Made) -> None:
    reference = load_arrays(made.out / "reference.safetensors")
    logits = ort.open(made.out / "model.onnx", threads=1).run(validation_batch(inputs))
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)
    assert made.outputs.facts.parity.relative < 1e-4
    assert made.outputs.facts.parity.top1 == 1.0


def test_the_reference_holds_the_first_validation_images_as_they_are(
    inputs: Inputs, made: Made
) -> None:
    reference = load_arrays(made.out / "reference.safetensors")
    pixels = split_reader.images(inputs, settings(), "validation").pixels
    assert np.array_equal(reference["input_pixels"], pixels)
    assert reference["logits"].dtype == np.float32


def test_it_is_smaller_and_still_right(made: Made) -> None:
    measures = made.outputs.measures
    assert measures["params_after"].value < 0.4 * measures["params_before"].value
    assert measures["macs_after"].value < 0.4 * measures["macs_before"].value
    assert measures["accuracy"].value > 0.9
    assert measures["accuracy_drop"].value < 0.1
    assert measures["accuracy"].n == COUNTS["validation"]


def test_layers_json_adds_up_to_the_measures(made: Made) -> None:
    rows, measures = made.json("layers.json"), made.outputs.measures
    for name in ("params_before", "params_after", "macs_before", "macs_after"):
        assert sum(row[name] for row in rows) == measures[name].value
    assert {row["layer"]: row["channels_after"] for row in rows}["classifier"] == 3


def test_each_step_states_what_it_did_and_what_it_left(made: Made) -> None:
    prune, distil = made.outputs.facts.steps
    assert [step["use"] for step in made.outputs.facts.recipe] == ["prune", "distil"]
    assert (prune.use, distil.use) == ("prune", "distil")
    assert prune.params == distil.params == made.outputs.measures["params_after"].value
    assert prune.skipped == {"classifier": "protected by fettle/models/families/small_cnn.py"}
    assert distil.validation_accuracy == made.outputs.measures["accuracy"].value


def test_a_student_is_pruned_and_thinned_and_rebuilt_from_the_plan(
    inputs: Inputs, tmp_path: Path
) -> None:
    recipe = (
        "compress.recipe=[{use: student, options: {width: 16, depth: 2, blocks: 2}, epochs: 1},"
        " {use: prune, keep_fraction: 0.5, recover_epochs: 0}, {use: depth, recover_epochs: 0}]"
    )
    found = make(inputs, tmp_path / "out", recipe)
    plan = CompressionPlan.from_json(found.json("plan.json"))
    options = {"width": 16, "depth": 2, "blocks": 2}
    assert plan.architecture == Architecture("small_cnn", options)
    assert len(plan.replaced) == 1
    asked = small_cnn.Params(**options)
    size = {"classes": len(CLASSES), "channels": 1, "size_px": SIDE}
    model = small_cnn.build(asked, **size, project=tmp_path)
    compression_plan.apply(model, plan)
    model.load_state_dict(load_file(found.out / "model.safetensors"))
    reference = load_arrays(found.out / "reference.safetensors")
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(validation_batch(inputs)))
    np.testing.assert_allclose(logits.numpy(), reference["logits"], atol=1e-3)


def test_what_the_loss_says_to_each_block_and_group_is_written_down(made: Made) -> None:
    doc = made.json("sensitivity.json")
    layers = {row["layer"] for row in made.json("layers.json")}
    assert {group["name"] for group in doc["groups"]} < layers
    assert doc["blocks"] == []  # one layer a block here, and each widens
    assert [share for share, _ in doc["groups"][0]["losses"]] == [0.75, 0.5, 0.25]
    assert doc["loss"] > 0
    assert doc["skipped"] == {"classifier": "protected by fettle/models/families/small_cnn.py"}


def test_the_recorder_hears_of_every_epoch_once(made: Made) -> None:
    steps = [step for name, _, step in made.recorder.scalars if name == "validation_accuracy"]
    assert steps == [1, 2, 3, 4, 5, 6]
    texts = [text for _, text in made.recorder.progresses]
    assert texts[0] == "prune, step-1: epoch 1 of 2"
    assert texts[-1] == "distil, distil: epoch 2 of 2"
    fractions = [fraction for fraction, _ in made.recorder.progresses]
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_same_inputs_same_bytes(inputs: Inputs, made: Made, tmp_path: Path) -> None:
    assert make(inputs, tmp_path / "again").bytes() == made.bytes()


def test_an_empty_recipe_hands_the_float_model_on(inputs: Inputs, tmp_path: Path) -> None:
    found = make(inputs, tmp_path / "out", "compress.recipe=[]")
    before = load_file(inputs["finetune"] / "model.safetensors")
    after = load_file(found.out / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found.json("plan.json") == CompressionPlan().to_json()
    assert found.outputs.facts.steps == ()
    assert found.outputs.measures["accuracy_drop"].value == 0


def count_steps(work: Any) -> int:
    """Count optimizer steps while `work` runs."""
    taken = []
    handle = register_optimizer_step_post_hook(lambda *_args, **_kwargs: taken.append(1))
    try:
        work()
    except Killed:
        pass
    finally:
        handle.remove()
    return len(taken)


@pytest.mark.parametrize(
    ("at", "left"),
    [
        ("prune, step-1: epoch 1 of 2", 5),
        ("prune, step-1: epoch 2 of 2", 4),
        ("prune, step-2: epoch 1 of 2", 3),
        ("distil, distil: epoch 1 of 2", 1),
        ("distil, distil: epoch 2 of 2", 0),
    ],
)
def test_a_killed_run_repeats_no_finished_epoch_and_ends_with_the_same_bytes(
    inputs: Inputs, made: Made, tmp_path: Path, at: str, left: int
) -> None:
    batches = COUNTS["train"] // 32
    out = tmp_path / "out"
    first = count_steps(lambda: make(inputs, out, recorder=Fatal(at)))
    assert first == (6 - left) * batches
    again = MemoryRecorder()
    assert count_steps(lambda: make(inputs, out, recorder=again)) == left * batches
    finished = left == 0 or at.startswith("distil")  # a finished step is not even looked into
    assert finished != any(text.startswith("prune") for _, text in again.progresses)
    assert Made(out, made.outputs, made.recorder).bytes() == made.bytes()


def test_a_model_that_lost_everything_is_called_collapsed_in_the_facts(tmp_path: Path) -> None:
    untrained = make_inputs(tmp_path / "project", epochs=0)
    recipe = "{use: prune, keep_fraction: 0.5, recover_epochs: 0}"
    found = make(untrained, tmp_path / "out", f"compress.recipe=[{recipe}]")
    (step,) = found.outputs.facts.steps
    (note,) = step.notes
    assert note.startswith("accuracy collapsed: ")
    assert found.recorder.notes["compress.recipe[0]"] == note


def test_a_distillation_that_gains_nothing_is_said(inputs: Inputs, tmp_path: Path) -> None:
    recipe = "{use: distil, epochs: 1, learning_rate: 1e-12}"
    found = make(inputs, tmp_path / "out", f"compress.recipe=[{recipe}]")
    (step,) = found.outputs.facts.steps
    assert [note.partition(":")[0] for note in step.notes] == ["it gained nothing"]


def test_a_loss_that_breaks_down_names_the_rate_of_that_step(
    inputs: Inputs, tmp_path: Path
) -> None:
    recipe = "{use: distil, epochs: 2, learning_rate: 1e38}"
    with pytest.raises(ModelError, match="the loss is not a number") as caught:
        make(inputs, tmp_path / "out", f"compress.recipe=[{recipe}]")
    assert "Fix: divide compress.recipe[0].learning_rate by ten" in str(caught.value)


def test_a_technique_for_graphs_is_refused_in_the_recipe(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        make(inputs, tmp_path / "out", "compress.recipe=[{use: static_int8}]")
    assert (
        "compress.recipe[0].use: unknown name 'static_int8' (files of fettle/compress/techniques: "
        "depth, distil, low_rank, prune, qat, resolution, sparse, student); int8 and other "
        "precisions are the targets' (params.yaml: targets), not a step's"
    ) in str(caught.value)


@pytest.mark.parametrize(("targets", "expected"), [(["x86_ort_fp32"], 8), (["x86_ort_int8"], 8)])
def test_the_channel_multiple_comes_from_the_targets(targets: list[str], expected: int) -> None:
    assert compression_context.channel_multiple(targets) == expected


def test_widths_are_multiples_of_the_targets_vector(made: Made) -> None:
    pruned = [row for row in made.json("layers.json") if row["layer"] != "classifier"]
    assert [row["channels_after"] % 8 for row in pruned] == [0] * len(pruned)


def test_the_calibration_digest_covers_the_images_that_export_takes(
    inputs: Inputs, made: Made
) -> None:
    train = split_reader.images(inputs, settings(), "train")
    assert made.outputs.facts.calibration_digest == compress.images_digest(train, 16)
    shorter = replace(train, ids=train.ids[:20], pixels=train.pixels[:20])
    assert compress.images_digest(shorter, 16) == compress.images_digest(train, 16)
    assert compress.images_digest(train, 17) != compress.images_digest(train, 16)
    renamed = replace(train, ids=["other", *train.ids[1:]])
    assert compress.images_digest(renamed, 16) != compress.images_digest(train, 16)
