"""Set up the search as the stage `compress` does, on macs: counted, so the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.context import Prepared
from fettle import manifest
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.params_schema import Compress
from fettle.recipes import recipe_evaluator
from fettle.recipes.cost_model import CostModel
from fettle.recipes.recovery_training import CompressionJob, example_input
from fettle.recipes.teacher_answers import TeacherAnswers
from fettle.recorder import MemoryRecorder


def bench(
    one: Prepared, folder: Path, asked: Mapping[str, float]
) -> recipe_evaluator.RecipeEvaluator:
    """Make the trial evaluator that compress would use, with further `compress.search` settings."""
    made = job(one, folder, MemoryRecorder(), asked)
    price = CostModel(
        minimise="macs",
        constraints=one.params.compress.constraints,
        bytes_per_weight=1,
        example=example_input(made),
        costs={},
    )
    return recipe_evaluator.RecipeEvaluator(replace(made, trials=2), price, tested(one))


def job(
    one: Prepared, folder: Path, recorder: MemoryRecorder, asked: Mapping[str, float]
) -> CompressionJob:
    """Make compress's job, its objective macs."""
    settings: Compress = one.params.compress
    goal = settings.model_copy(
        update={
            "objective": settings.objective.model_copy(update={"minimise": "macs"}),
            "search": settings.search.model_copy(update=asked),
        }
    )
    return CompressionJob(
        params=one.params.model_copy(update={"compress": goal}),
        recipe=[],
        facts=manifest.read(one.inputs["finetune"], FinetuneFacts, verify=False).facts,
        weights=one.inputs["finetune"] / "model.safetensors",
        project=one.inputs.project,
        scratch=folder,
        train=one.images("train"),
        validation=one.images("validation"),
        recorder=recorder,
        answers=TeacherAnswers(folder),
    )


def tested(one: Prepared) -> int:
    """Count the test images."""
    return len(one.images("test").labels)
