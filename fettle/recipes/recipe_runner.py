"""Carry a torch module through the compression recipe: the part of stages/compress.py with torch.

After each step of the recipe the model is rebuilt from its kept plan and weights, as after a kill:
a resumed run goes the same way as an unbroken one, and the artefact is known to load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fettle import manifest, plugins
from fettle.compress import compression_plan, layer_costs
from fettle.compress.compression_plan import Architecture, CompressionPlan
from fettle.compress.recipe_warnings import step_warnings
from fettle.compress.technique import CompressionContext
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.errors import ModelError
from fettle.evaluation import accuracy_statistics
from fettle.measure import Measure
from fettle.models import export_onnx
from fettle.params import Strict
from fettle.preprocessing import Floats
from fettle.recipes.recovery_training import (
    CompressionJob,
    ReportEpoch,
    Teacher,
    example_input,
    load_teacher,
    recovery_fit,
    training_batches,
)
from fettle.recipes.search import trial
from fettle.recipes.training_setup import threads
from fettle.training import inference, training_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model as it stands: plan from the full architecture, layers, answers to the validation
    images [n, classes], their accuracy, and the epochs of recovery it took.
    """

    model: nn.Module
    plan: CompressionPlan
    layers: list[layer_costs.LayerCost]
    logits: Floats
    accuracy: Measure
    epochs: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Parameters, and multiply-accumulates for one image."""
        return layer_costs.totals(self.layers)


@dataclass(frozen=True, slots=True)
class RecipeResult:
    """The float model, the compressed one, and what each step did (the manifest's `steps`)."""

    before: ModelState
    after: ModelState
    steps: list[dict[str, Any]]  # Any: JSON


def run_recipe(job: CompressionJob) -> RecipeResult:
    """Take every step of the recipe, or take it up from scratch where it was already taken."""
    torch.set_num_threads(threads())
    before = float_model_state(job)
    teacher = load_teacher(job.weights, before.model)
    now, steps = float_model_state(job), []
    for index, entry in enumerate(job.recipe):
        last, (now, state) = now, run_step(job, now, index, teacher=teacher)
        technique = load_technique(job, index)
        said = step_warnings(
            technique.CLAIMS,
            before=last.size,
            after=now.size,
            accuracy_before=last.accuracy,
            accuracy_after=now.accuracy,
            chance=majority_class_share(job.validation),
        )
        notes = [*state["notes"], *said]
        for text in notes:
            job.recorder.note(f"compress.recipe[{index}]", text)
        steps.append(step_facts(entry["use"], now, notes, state["skipped"]))
    return RecipeResult(before, now, steps)


def float_model_state(job: CompressionJob) -> ModelState:
    """Return the float model: the start of every recipe, and its teacher."""
    found = rebuild_model(job, CompressionPlan(), load_file(job.weights))
    found.model.requires_grad_(False)
    return found


def load_technique(job: CompressionJob, at: int) -> ModuleType:
    """Find the file of the recipe's step `at`."""
    return plugins.resolve("techniques", job.recipe[at]["use"], where=f"compress.recipe[{at}].use")


# Any: a state is JSON.
def run_step(
    job: CompressionJob, now: ModelState, at: int, *, teacher: Teacher
) -> tuple[ModelState, dict[str, Any]]:
    """Take step `at` of the recipe from `now`, whose model is spent, unless scratch has it."""
    folder = step_folder(job, at)
    if training_checkpoint.load(folder) is None:
        apply_step(job, now, at=at, teacher=teacher)
    return load_step(job, folder)


def step_folder(job: CompressionJob, at: int) -> Path:
    """Name the folder of the recipe up to and with step `at`: recipes that begin alike share it."""
    return job.scratch / trial.key(job.recipe[: at + 1])


# Any: one entry of the manifest's `steps`, JSON.
def step_facts(
    use: str, now: ModelState, notes: list[str], skipped: dict[str, str]
) -> dict[str, Any]:
    """State what a step of the recipe left behind."""
    return {
        "use": use,
        "params": now.size[0],
        "macs": now.size[1],
        "validation_accuracy": now.accuracy.value,
        "notes": notes,
        "skipped": skipped,
    }


def rebuild_model(
    job: CompressionJob, plan: CompressionPlan, weights: dict[str, torch.Tensor], epochs: int = 0
) -> ModelState:
    """Build the architecture, cut it to `plan`, load `weights`; look at it in eval mode."""
    start = plan.architecture or Architecture(job.facts["family"], job.facts["options"])
    model = build(job, start.family, start.options)
    compression_plan.apply(model, plan)
    load_weights(model, weights, start.family)
    model.to(inference.device()).eval()
    normalise = split_reader.preprocess(job.params).normalise
    logits = inference.logits(model, job.validation.pixels, normalise)
    return ModelState(
        model=model,
        plan=plan,
        layers=layer_costs.count_layers(model, example_input(job)),
        logits=logits,
        accuracy=accuracy_statistics.accuracy(logits, job.validation.labels),
        epochs=epochs,
    )


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], family: str) -> None:
    """Load kept weights; raises ModelError when the family now makes another network."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as err:
        raise ModelError(
            f"fettle/models/families/{family}.py makes another network than was trained",
            got=" ".join(str(err).split())[:300],
            rule="with the same options it makes the same names and shapes each time it is called",
            fix="let the function that finetune.options.entry names choose nothing at random, nor "
            "by a file or variable that may change",
        ) from err


# Any: the family's Params checks them.
def build(job: CompressionJob, name: str, options: Mapping[str, Any]) -> nn.Module:
    """Make a family's network, untrained, for the images and classes at hand."""
    family = plugins.resolve("families", name, where="finetune.family")
    model: nn.Module = family.build(
        parse(family, options),
        classes=len(job.facts["classes"]),
        channels=job.facts["channels"],
        size_px=job.facts["size_px"],
        project=job.project,
    )
    return model


def apply_step(job: CompressionJob, now: ModelState, *, at: int, teacher: Teacher) -> None:
    """Apply step `at` to `now.model` and keep the result in its folder, whole or not at all."""
    entry, folder = job.recipe[at], step_folder(job, at)
    now.model.requires_grad_(True)
    report = ReportEpoch(job, at, entry["use"], now.epochs)
    workshop = CompressionContext(
        example=example_input(job),
        protected=protected(job, now),
        channel_multiple=channel_multiple(job.params.targets),
        seed=job.params.seed,
        batches=lambda: training_batches(job),
        fit=recovery_fit(job, teacher, folder, report),
        build=lambda name, options: build(job, name, options),
    )
    technique = load_technique(job, at)
    options = {key: value for key, value in entry.items() if key != "use"}
    outcome = technique.apply(now.model, now.plan, parse(technique, options), workshop)
    state = {
        "plan": outcome.plan.to_json(),
        "skipped": dict(outcome.skipped),
        "notes": list(outcome.notes),
        "epochs": report.epochs,
    }
    model = now.model if outcome.model is None else outcome.model
    training_checkpoint.save(folder, {"model": model.state_dict()}, state)


def load_step(job: CompressionJob, folder: Path) -> tuple[ModelState, dict[str, Any]]:
    """Rebuild what `take` kept in `folder`; also return its state (Any: JSON)."""
    kept = training_checkpoint.load(folder)
    assert kept is not None, folder  # take() has just written it, or an earlier run had
    parts, state = kept
    plan = CompressionPlan.from_json(state["plan"])
    return rebuild_model(job, plan, parts["model"], state["epochs"]), state


def write_artefacts(
    job: CompressionJob, done: RecipeResult, out: Path, reference: Floats
) -> export_onnx.Parity:
    """Write model.onnx, model.safetensors, plan.json and layers.json; return model.onnx's parity
    with the `reference` logits of the first validation images.

    Raises ModelError when the two diverge.
    """
    model, facts = done.after.model, job.facts
    onnx = out / "model.onnx"
    export_onnx.export(model, channels=facts["channels"], size_px=facts["size_px"], out=onnx)
    first = job.validation.pixels[: len(reference)]
    parity = export_onnx.parity(
        onnx, split_reader.preprocess(job.params).normalise(first), reference
    )
    export_onnx.check_parity(parity, what="the compressed model's ONNX file")
    save_file(training_checkpoint.detached(model.state_dict()), out / "model.safetensors")
    manifest.write_json(out / "plan.json", done.after.plan.to_json())
    manifest.write_json(
        out / "layers.json", layer_costs.compare_layers(done.before.layers, done.after.layers)
    )
    return parity


# Any: a plug-in's Params is its own class.
def parse(plugin: ModuleType, options: Mapping[str, Any]) -> Strict:
    """Parse options that params.yaml's check already let through."""
    model: type[Strict] = plugin.Params
    return model.model_validate_json(json.dumps(dict(options)))


def protected(job: CompressionJob, now: ModelState) -> dict[str, str]:
    """Name the layers that the model's family protects, with the reason."""
    name = now.plan.architecture.family if now.plan.architecture else job.facts["family"]
    family = plugins.resolve("families", name, where="finetune.family")
    inside = {one for module in family.protected(now.model) for one in module.modules()}
    reason = f"protected by fettle/models/families/{name}.py"
    return {layer: reason for layer, module in now.model.named_modules() if module in inside}


def channel_multiple(targets: list[str]) -> int:
    """Return the largest channel multiple of the targets, as one model serves them all."""
    found = [
        plugins.resolve("targets", name, where=f"targets[{index}]").TARGET.channel_multiple
        for index, name in enumerate(targets)
    ]
    return int(max(found))


def majority_class_share(images: Images) -> float:
    """Return the share of the commonest class: the accuracy of a model that learnt nothing."""
    counts = torch.bincount(torch.from_numpy(images.labels))
    return float(counts.max()) / len(images.labels)
