"""Recipe runner: a torch module taken through the compression recipe, step by step.

After each step of the recipe the model is rebuilt from its kept plan and weights, as after a kill:
a resumed run goes the same way as an unbroken one, and the artefact is known to load.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fettle import manifest, params_scope, plugins
from fettle.compress import compression_plan, input_resizing, layer_costs
from fettle.compress.compression_plan import Architecture, CompressionPlan
from fettle.compress.recipe_warnings import step_warnings
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.errors import ModelError
from fettle.evaluation import accuracy_statistics
from fettle.facts.compress_facts import RecipeStep
from fettle.measure import Measure
from fettle.models import export_onnx
from fettle.params import Params
from fettle.preprocessing import Floats
from fettle.recipes.compression_context import (
    build_network,
    compression_context,
    parse_options,
)
from fettle.recipes.recovery_training import (
    CompressionJob,
    ReportEpoch,
    Teacher,
    example_input,
    load_teacher,
    recovery_fit,
)
from fettle.recipes.search import trial
from fettle.recipes.training_setup import threads
from fettle.training import inference, training_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """Model state: plan from the full architecture, layers, answers to the validation images
    [n, classes], their accuracy, and the epochs of recovery it took.
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
    """Recipe result: float model, compressed model, what each step did (the manifest's `steps`)."""

    before: ModelState
    after: ModelState
    steps: list[RecipeStep]


@dataclass(frozen=True, slots=True)
class KeptStep:
    """What a technique said of a step: notes, and {layer: why it was left alone}."""

    notes: tuple[str, ...]
    skipped: Mapping[str, str]


def run_recipe(job: CompressionJob) -> RecipeResult:
    """Recipe run: take every step, or load it from scratch where it was already taken."""
    torch.set_num_threads(threads())
    before = float_model_state(job)
    teacher = load_teacher(job.weights, before.model)
    state, steps = replace(before, model=copy.deepcopy(before.model)), []
    for index, entry in enumerate(job.recipe):
        last, (state, kept) = state, run_step(job, state, index, teacher=teacher)
        technique = load_technique(job, index)
        warnings = step_warnings(
            technique.CLAIMS,
            before=last.size,
            after=state.size,
            accuracy_before=last.accuracy,
            accuracy_after=state.accuracy,
            chance=majority_class_share(job.validation),
        )
        notes = [*kept.notes, *warnings]
        for text in notes:
            job.recorder.note(f"compress.recipe[{index}]", text)
        steps.append(step_facts(entry["use"], state, notes, kept.skipped))
    return RecipeResult(before, state, steps)


def float_model_state(job: CompressionJob) -> ModelState:
    """Float model: the start of every recipe, and its teacher."""
    state = rebuild_model(job, CompressionPlan(), load_file(job.weights))
    state.model.requires_grad_(False)
    return state


def load_technique(job: CompressionJob, index: int) -> ModuleType:
    """Technique, a module of fettle/compress/techniques, of the recipe's step `index`."""
    return plugins.resolve(
        "techniques", job.recipe[index]["use"], where=f"compress.recipe[{index}].use"
    )


def run_step(
    job: CompressionJob, state: ModelState, index: int, *, teacher: Teacher
) -> tuple[ModelState, KeptStep]:
    """Recipe step `index` taken from `state`, whose model is spent, unless scratch has it."""
    folder = step_folder(job, index)
    if training_checkpoint.load(folder) is None:
        apply_step(job, state, index=index, teacher=teacher)
    return load_step(job, folder)


def step_folder(job: CompressionJob, index: int) -> Path:
    """Folder in scratch of the recipe up to and with a step: recipes that begin alike share it."""
    return job.scratch / trial.key(job.recipe[: index + 1])


def step_facts(
    use: str, state: ModelState, notes: list[str], skipped: Mapping[str, str]
) -> RecipeStep:
    """Facts of a step of the recipe, for the manifest: size, accuracy, notes."""
    return RecipeStep(
        use=use,
        params=state.size[0],
        macs=state.size[1],
        validation_accuracy=state.accuracy.value,
        notes=tuple(notes),
        skipped=skipped,
    )


def rebuild_model(
    job: CompressionJob, plan: CompressionPlan, weights: dict[str, torch.Tensor], epochs: int = 0
) -> ModelState:
    """Model rebuilt from its plan and weights, and scored on validation in eval mode."""
    model = planned_network(job, plan, weights)
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


def planned_network(
    job: CompressionJob, plan: CompressionPlan, weights: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Network of a plan with its weights, in eval mode on its device."""
    start = plan.architecture or Architecture(job.facts.family, dict(job.facts.options))
    model = build_network(job, start.family, start.options)
    compression_plan.apply(model, plan)
    load_weights(model, weights, start.family)
    return model.to(inference.device()).eval()


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


def apply_step(job: CompressionJob, state: ModelState, *, index: int, teacher: Teacher) -> None:
    """Apply step `index` to `state.model`; keep the result in its folder, whole or not at all."""
    entry, folder = job.recipe[index], step_folder(job, index)
    state.model.requires_grad_(True)
    report = ReportEpoch(job, index, entry["use"], state.epochs)
    context = compression_context(
        job, state.model, state.plan, fit=recovery_fit(job, teacher, folder, report)
    )
    technique = load_technique(job, index)
    options = {key: value for key, value in entry.items() if key != "use"}
    outcome = technique.apply(state.model, state.plan, parse_options(technique, options), context)
    facts = {
        "plan": outcome.plan.to_json(),
        "skipped": dict(outcome.skipped),
        "notes": list(outcome.notes),
        "epochs": report.epochs,
    }
    model = state.model if outcome.model is None else outcome.model
    training_checkpoint.save(folder, {"model": model.state_dict()}, facts)


def load_step(job: CompressionJob, folder: Path) -> tuple[ModelState, KeptStep]:
    """Step result that `apply_step` kept in `folder`, rebuilt; also what it said of it."""
    kept = training_checkpoint.load(folder)
    assert kept is not None, folder  # apply_step has just written it, or an earlier run had
    parts, facts = kept
    plan = CompressionPlan.from_json(facts["plan"])
    state = rebuild_model(job, plan, parts["model"], facts["epochs"])
    return state, KeptStep(tuple(facts["notes"]), facts["skipped"])


def as_exported(
    job: CompressionJob, done: RecipeResult, read: Callable[[Params, str], Images]
) -> tuple[CompressionJob, RecipeResult]:
    """Job and result as the exported model has them: it takes the plan's smaller images itself.

    `read` decodes a split at a params' side. Where the plan has none, nothing changes.
    """
    size_px = done.after.plan.input_size_px
    if size_px is None:
        return job, done
    params = params_scope.at_side(job.params, size_px)
    small = replace(
        job,
        params=params,
        train=read(params, "train"),
        validation=read(params, "validation"),
    )
    input_resizing.remove(done.after.model)
    normalise = split_reader.preprocess(params).normalise
    logits = inference.logits(done.after.model, small.validation.pixels, normalise)
    accuracy = accuracy_statistics.accuracy(logits, small.validation.labels)
    return small, replace(done, after=replace(done.after, logits=logits, accuracy=accuracy))


def write_artefacts(
    job: CompressionJob, done: RecipeResult, out: Path, reference: Floats
) -> export_onnx.Parity:
    """Write model.onnx, model.safetensors, plan.json and layers.json; return model.onnx's parity
    with the `reference` logits of the first validation images.

    Job and result are `as_exported`'s. Raises ModelError when the two diverge.
    """
    model, pre = done.after.model, job.params.preprocess
    onnx = out / "model.onnx"
    export_onnx.export(model, channels=pre.channels, size_px=pre.side_px, out=onnx)
    first = job.validation.pixels[: len(reference)]
    parity = export_onnx.parity(
        onnx, split_reader.preprocess(job.params).normalise(first), reference
    )
    export_onnx.check_parity(parity, what="the compressed model's ONNX file")
    save_file(training_checkpoint.detached(model.state_dict()), out / "model.safetensors")
    manifest.write_json(out / "plan.json", done.after.plan.to_json())
    layer_costs.compare_layers(done.before.layers, done.after.layers).write(out / "layers.json")
    return parity


def majority_class_share(images: Images) -> float:
    """Majority class's share of the images: the accuracy of a model that learnt nothing."""
    counts = torch.bincount(torch.from_numpy(images.labels))
    return float(counts.max()) / len(images.labels)
