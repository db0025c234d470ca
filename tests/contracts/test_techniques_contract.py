"""Every technique in fettle/compress/techniques keeps the same contract, and its own claims."""

from __future__ import annotations

import ast
import copy
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fettle import plugins
from fettle.compress import compression_plan, layer_costs, sensitivity_analysis
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import Capabilities, CompressionContext, TechniqueResult
from fettle.models.families import small_cnn
from fettle.params_schema import Options, Strict

TECHNIQUES = plugins.names("techniques")
EXAMPLE = torch.zeros(1, 1, 8, 8)


class Lesson:
    """A `fit` that takes one plain step of gradient descent, and counts."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def __call__(
        self,
        model: nn.Module,
        *,
        phase: str,
        epochs: int,
        learning_rate: float,
        temperature: float,
        alpha: float,
    ) -> None:
        assert epochs >= 1
        assert min(learning_rate, temperature) > 0
        assert 0 <= alpha <= 1
        self.phases.append(phase)
        model.train()
        images, labels = next(batches())
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call] # torch
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= learning_rate * parameter.grad
        model.zero_grad()
        model.eval()


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        yield torch.randn(16, 1, 8, 8, generator=generator), torch.arange(16) % 3


def build() -> nn.Module:
    torch.manual_seed(0)
    options = small_cnn.Params(width=16, depth=2, blocks=2)
    return small_cnn.build(options, classes=3, channels=1, size_px=8, project=Path()).eval()


def student(name: str, options: Options) -> nn.Module:
    family = plugins.resolve("families", name, where="")
    model: nn.Module = family.build(
        family.Params(**options), classes=3, channels=1, size_px=8, project=Path()
    )
    return model.eval()


def compression_context(lesson: Lesson) -> CompressionContext:
    return CompressionContext(
        example=EXAMPLE,
        protected={"classifier": "it is the classifier"},
        channel_multiple=8,
        seed=1,
        batches=batches,
        fit=lesson,
        build=student,
    )


def apply(name: str, model: nn.Module) -> tuple[nn.Module, TechniqueResult, Lesson]:
    technique, lesson = plugins.resolve("techniques", name, where=""), Lesson()
    outcome: TechniqueResult = technique.apply(
        model, CompressionPlan(), technique.Params(), compression_context(lesson)
    )
    return model if outcome.model is None else outcome.model, outcome, lesson


def test_the_techniques_are_these() -> None:
    assert TECHNIQUES == [
        "depth",
        "distil",
        "low_rank",
        "prune",
        "qat",
        "resolution",
        "sparse",
        "student",
    ]


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_has_strict_params_with_defaults_claims_and_apply(name: str) -> None:
    technique = plugins.resolve("techniques", name, where="")
    assert issubclass(technique.Params, Strict)
    assert technique.Params() == technique.Params.model_validate_json("{}")
    assert isinstance(technique.CLAIMS, Capabilities)
    assert inspect.isfunction(technique.apply)
    assert plugins.summary("techniques", name).endswith(".")


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_imports_no_heavy_library_at_the_top(name: str) -> None:
    tree = ast.parse((plugins.folder_path("techniques") / f"{name}.py").read_text())
    heavy = {"torch", "torch_pruning", "onnx", "onnxruntime", "openvino", "sklearn", "scipy"}
    found = set()
    for node in tree.body:  # the top level only: not inside functions, nor under TYPE_CHECKING
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    assert not found & heavy


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_does_to_size_and_shapes_what_it_claims(name: str) -> None:
    claims: Capabilities = plugins.resolve("techniques", name, where="").CLAIMS
    model = build()
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    before = layer_costs.totals(layer_costs.count_layers(model, EXAMPLE))
    model, outcome, lesson = apply(name, model)
    after = layer_costs.totals(layer_costs.count_layers(model, EXAMPLE))
    assert (after[0] < before[0]) == claims.shrinks_parameters
    assert (after[1] < before[1]) == claims.shrinks_macs
    kept = {key: tensor.shape for key, tensor in model.state_dict().items()} == shapes
    assert kept == claims.keeps_shapes
    same_plan = claims.keeps_shapes and not claims.shrinks_images
    assert (outcome.plan == CompressionPlan()) == same_plan
    assert (outcome.plan.input_size_px is not None) == claims.shrinks_images
    assert bool(lesson.phases) == claims.needs_training


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_keeps_the_answer_s_shape_and_the_protected_layer(name: str) -> None:
    model, _, _ = apply(name, build())
    images, _ = next(batches())
    assert model(images).shape == (16, 3)
    assert dict(model.named_modules())["classifier"].weight.shape[0] == 3  # type: ignore[union-attr, index] # a Linear


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_names_each_training_once(name: str) -> None:
    _, _, lesson = apply(name, build())
    assert len(set(lesson.phases)) == len(lesson.phases)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_repeats_itself_exactly(name: str) -> None:
    (first, one, _), (second, two, _) = apply(name, build()), apply(name, build())
    assert (one.plan, one.skipped, one.notes) == (two.plan, two.skipped, two.notes)
    left, right = first.state_dict(), second.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_the_proposals_of_a_technique_are_options_of_its_own(name: str) -> None:
    technique = plugins.resolve("techniques", name, where="")
    if not hasattr(technique, "proposals"):
        assert not technique.CLAIMS.shrinks_parameters, "a search could never take it"
        return
    sensitivity = sensitivity_analysis.measure_sensitivity(
        build(), compression_context(Lesson()), as_built=True
    )
    proposed = technique.proposals(sensitivity, multiple=8, seed=0)
    assert proposed == technique.proposals(sensitivity, multiple=8, seed=0)
    for options in proposed:
        technique.Params.model_validate_json(json.dumps(options))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_that_serves_some_objectives_only_says_why(name: str) -> None:
    claims: Capabilities = plugins.resolve("techniques", name, where="").CLAIMS
    assert (claims.serves is None) == (claims.reason == "")


@pytest.mark.parametrize("name", TECHNIQUES)
def test_the_plan_of_a_technique_rebuilds_its_model(name: str) -> None:
    model, outcome, _ = apply(name, build())
    plan = CompressionPlan.from_json(json.loads(json.dumps(outcome.plan.to_json())))
    start = plan.architecture
    fresh = build() if start is None else student(start.family, start.options)
    compression_plan.apply(fresh, plan)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    images, _ = next(batches())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(images), model.eval()(images))
