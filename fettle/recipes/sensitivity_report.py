"""Write sensitivity.json: what the loss says to each block and group of the float model.

Measured once, of the model as it was fine-tuned, whatever the recipe: the report draws it, and a
person reads from it what a recipe of his own may take.
"""

from __future__ import annotations

from pathlib import Path

from fettle import manifest
from fettle.compress import sensitivity_analysis
from fettle.compress.technique import CompressionContext
from fettle.recipes import recipe_runner
from fettle.recipes.recipe_runner import ModelState
from fettle.recipes.recovery_training import (
    CompressionJob,
    example_input,
    skip_training,
    training_batches,
)


def write(job: CompressionJob, before: ModelState, out: Path) -> None:
    """Measure the float model and write the document; see _sensitivity.to_json."""
    workshop = CompressionContext(
        example=example_input(job),
        protected=recipe_runner.protected(job, before),
        channel_multiple=recipe_runner.channel_multiple(job.params.targets),
        seed=job.params.seed,
        batches=lambda: training_batches(job),
        fit=skip_training,
        build=lambda name, options: recipe_runner.build(job, name, options),
    )
    found = sensitivity_analysis.measure_sensitivity(before.model, workshop)
    manifest.write_json(out / "sensitivity.json", sensitivity_analysis.to_json(found))
